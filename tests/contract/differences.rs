//! Where gateways, and so the client and the simulation, differ from the contract: every difference with its reason.
//!
//! The contract describes protocol 4 as of its version ([`lab::CONTRACT`](openclaw_controller::lab::CONTRACT)). Older gateways
//! lack what is newer in it, newer ones have what it does not know yet. A difference that no gateway of its kind shows any more
//! is an error, so that this list cannot outlive its reasons.

use openclaw_controller::sim::SimDialect;

/// What the contract has no words for, by the name that the definition would have. Nothing can be said about their content.
pub(crate) const UNDESCRIBED: [&str; 5] = [
    "ChatSendResult",
    "ConfigGetResult",
    "ConfigPatchResult",
    "SessionsPatchResult",
    "SessionsResetResult",
];

/// Events that the contract does not describe and that no `hello-ok` announces.
pub(crate) const UNANNOUNCED: [&str; 2] = [
    // It is what `hello-ok` answers.
    "connect.challenge",
    // 2026.9.6 sends it whenever its config file was written; the client needs none of it.
    "config.changed",
];

/// One difference.
pub(crate) struct Difference {
    /// Whose it is.
    pub(crate) of: fn(SimDialect) -> bool,
    /// The violation, in the words of the check.
    pub(crate) violation: &'static str,
    /// Whether every such gateway shows it, in all that the client asks of it. Others depend on what runs on the gateway's host.
    pub(crate) always: bool,
    /// Why it is one all the same.
    pub(crate) why: &'static str,
}

/// All differences.
pub(crate) const DIFFERENCES: [Difference; 7] = [
    Difference {
        of: is_old,
        violation: "HelloOk: unexpected \"canvasHostUrl\"",
        always: true,
        why: "2026.4.29 tells the address of its canvas, which newer gateways list under pluginSurfaceUrls",
    },
    Difference {
        of: SimDialect::has_entries,
        violation: "AgentsFilesSetParams: unexpected \"expectedHash\"",
        always: true,
        why: "newer than the contract; the client sends it only to gateways whose agents.files.get gave a hash",
    },
    Difference {
        of: SimDialect::has_entries,
        violation: "AgentsFilesGetResult/file: unexpected \"hash\"",
        always: true,
        why: "newer than the contract; what goes back as expectedHash",
    },
    Difference {
        of: SimDialect::has_entries,
        violation: "AgentsFilesSetResult/file: unexpected \"hash\"",
        always: true,
        why: "newer than the contract; what goes back as expectedHash",
    },
    Difference {
        of: SimDialect::has_entries,
        violation: "HelloOk/auth: unexpected \"method\"",
        always: true,
        why: "newer than the contract; by what the client was let in",
    },
    Difference {
        of: SimDialect::has_entries,
        violation: "HelloOk: unexpected \"controlUiLinkReaders\"",
        always: false,
        why: "newer than the contract; what plugins offer the gateway's own pages",
    },
    Difference {
        of: SimDialect::has_entries,
        violation: "HelloOk/snapshot/health/eventLoop: unexpected \"cpuBreakdown\"",
        always: false,
        why: "newer than the contract; a measurement that the gateway makes now and then",
    },
];

fn is_old(dialect: SimDialect) -> bool {
    dialect.protocol() == 3
}
