//! Devices, as a gateway keeps them that is reached from elsewhere: pending until somebody approves them, with a token after that.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::handshake::Refusal;
use super::rpc::RpcError;

/// The devices that were ever seen.
#[derive(Debug, Default)]
pub(super) struct Devices {
    /// The id of the request of each device that waits.
    pending: BTreeMap<String, String>,
    /// The token of each approved device.
    paired: BTreeMap<String, String>,
}

impl Devices {
    /// The requests that wait.
    pub(super) fn requests(&self) -> Vec<String> {
        self.pending.values().cloned().collect()
    }

    /// Lets the device in that made this request; says whether there was one.
    pub(super) fn approve(&mut self, request: &str) -> bool {
        let device = self
            .pending
            .iter()
            .find(|(_, id)| *id == request)
            .map(|(device, _)| device.clone());
        let Some(device) = device else { return false };
        self.pending.remove(&device);
        self.paired.insert(device, new_token());
        true
    }

    /// Gives every device another token, without telling it.
    pub(super) fn rotate(&mut self) {
        for token in self.paired.values_mut() {
            *token = new_token();
        }
    }

    /// Forgets every device.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The tokens of all devices, to look for where they must not be.
    pub(super) fn tokens(&self) -> Vec<String> {
        self.paired.values().cloned().collect()
    }

    /// Whether this is the device's token.
    pub(super) fn is_token(&self, device: &str, token: &str) -> bool {
        self.paired.get(device).is_some_and(|issued| issued == token)
    }

    /// The device's token, or that it has to be approved first. The same request stays for as long as it waits.
    pub(super) fn admit(&mut self, device: &str) -> Result<String, Refusal> {
        if let Some(token) = self.paired.get(device) {
            return Ok(token.clone());
        }
        let request = self
            .pending
            .entry(device.to_owned())
            .or_insert_with(|| Uuid::new_v4().to_string());
        let message = format!("pairing required: device is not approved yet (requestId: {request})");
        let details = json!({
            "code": "PAIRING_REQUIRED",
            "reason": "not-paired",
            "requestId": request,
            "remediationHint": "Approve this device from the pending pairing requests.",
            "deviceId": device,
            "requestedRole": "operator",
        });
        Err((RpcError::new("NOT_PAIRED".to_owned(), message).details(details), 1008))
    }
}

fn new_token() -> String {
    format!("sim-device-{}", Uuid::new_v4().simple())
}

/// What `hello-ok` says of who was let in.
pub(super) fn auth(scopes: &[String], device_token: Option<&str>) -> Value {
    let mut auth = json!({ "role": "operator", "scopes": scopes });
    if let Some(token) = device_token {
        auth["deviceToken"] = json!(token);
    }
    auth
}
