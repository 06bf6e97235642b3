//! The words for why a tunnel ended and why its target cannot be reached. Words are stable: they stand in rows, events
//! and the API.

use proto::code::Code;

/// Why a tunnel reached a final state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    ClosedByUser,
    WindowClosed,
    HeartbeatLost,
    AgentLost,
    Idle,
    Suspended,
    Removed,
    /// The machine's owner locked it down.
    LockedDown,
    MasterRestarted,
    MasterStopped,
    /// Not established in time, and the agent was not there.
    AgentOffline,
    /// Not established in time, with the word of the last failure; or refused for good before that.
    NotEstablished(&'static str),
    Expired,
}

impl CloseReason {
    pub fn word(self) -> &'static str {
        match self {
            Self::ClosedByUser => "closed_by_user",
            Self::WindowClosed => "window_closed",
            Self::HeartbeatLost => "heartbeat_lost",
            Self::AgentLost => "agent_lost",
            Self::Idle => "idle",
            Self::Suspended => "suspended",
            Self::Removed => "removed",
            Self::LockedDown => "locked_down_by_owner",
            Self::MasterRestarted => "master_restarted",
            Self::MasterStopped => "master_stopped",
            Self::AgentOffline => "agent_offline",
            Self::NotEstablished(word) => word,
            Self::Expired => "expired",
        }
    }

    /// Whether it ends a standing tunnel too: those end by removal (of the tunnel or its agent) and suspension only.
    pub fn ends_standing(self) -> bool {
        match self {
            Self::ClosedByUser | Self::Suspended | Self::Removed => true,
            Self::WindowClosed
            | Self::HeartbeatLost
            | Self::AgentLost
            | Self::Idle
            | Self::LockedDown
            | Self::MasterRestarted
            | Self::MasterStopped
            | Self::AgentOffline
            | Self::NotEstablished(_)
            | Self::Expired => false,
        }
    }
}

/// Why the target could not be reached: what `health` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The stable word.
    pub word: &'static str,
    /// One sentence for people.
    pub message: String,
    /// Trying again within this tunnel's life makes no sense.
    pub permanent: bool,
}

impl Failure {
    pub fn new(word: &'static str, message: impl Into<String>) -> Self {
        Self { word, message: message.into(), permanent: false }
    }

    /// From the code of a refusal or of a reset stream.
    pub fn from_code(code: Code, message: &str) -> Self {
        let told =
            if message.is_empty() { code.meaning().unwrap_or("The agent gave an unknown code.") } else { message };
        let permanent = [Code::POLICY, Code::UNKNOWN_OPERATION, Code::INVALID].contains(&code);
        Self { word: code.word().unwrap_or("unknown_code"), message: told.to_owned(), permanent }
    }
}

/// Whether a code says something about the target (or the owner's policy on it, or an agent that answers nonsense) rather
/// than about the line. Codes of newer agents do.
pub(super) fn is_about_target(code: Code) -> bool {
    let known = [
        Code::TARGET_REFUSED,
        Code::TARGET_UNREACHABLE,
        Code::TARGET_TIMEOUT,
        Code::NAME_NOT_FOUND,
        Code::POLICY,
        Code::UNKNOWN_OPERATION,
        Code::INVALID,
        Code::TOO_SLOW,
        Code::MALFORMED,
        Code::TOO_LARGE,
        Code::INTERNAL,
    ];
    known.contains(&code) || code.word().is_none()
}
