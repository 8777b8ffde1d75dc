//! The frames on a simulated gateway's sockets, for tests to look at.

use std::fmt;
use std::sync::Arc;

/// Who sent a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The client.
    Client,
    /// The gateway.
    Gateway,
}

/// One text frame. It may hold secrets.
#[derive(Clone, Copy)]
pub struct SeenFrame<'a> {
    /// A number for the connection, never used twice by one gateway.
    pub connection: u64,
    /// Who sent it.
    pub sender: Sender,
    /// The text.
    pub text: &'a str,
}

/// Whom to show every frame.
#[derive(Clone)]
pub(super) struct FrameHook(Arc<dyn Fn(&SeenFrame<'_>) + Send + Sync>);

impl FrameHook {
    pub(super) fn new(hook: impl Fn(&SeenFrame<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    pub(super) fn call(&self, frame: &SeenFrame<'_>) {
        (self.0)(frame);
    }
}

impl fmt::Debug for FrameHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FrameHook")
    }
}
