//! What the rooms below may fail with, as problems. The one place where an error becomes a status.

use proto::code::Code;

use super::{
    extract::{not_found, nothing_here},
    problem::{Kind, Problem},
};
use crate::{
    access::{
        BadLabels, BadPermission, CreateTokenError, Denied, HashError, LoginError, PersonError, ProofError, SetupError,
        TooMany,
    },
    command::CallError,
    fleet::OpenError,
    session::{exec::ExecError, shell::ShellError},
    store::{
        StoreError,
        agents::{AddAgentError, PatchAgentError},
    },
    transfer::TransferError,
    tunnel::direct::ConnectError,
    tunnel::{ActError, CreateError, ExtendError, ports::PortError},
};

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Permission(_) => Kind::Forbidden.problem(denied.to_string()),
            Denied::Hidden => not_found(),
        }
    }
}

impl From<&StoreError> for Problem {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Busy | StoreError::Full | StoreError::Unavailable(_) => {
                tracing::warn!(error = %chain(error), "the database refused a request of the API");
                Kind::StoreUnavailable.problem(error.to_string()).retry_after(1)
            }
            StoreError::BadCursor => Kind::Invalid.problem(error.to_string()),
            StoreError::Exists => Kind::Conflict.problem(error.to_string()),
            StoreError::Corrupt(_) | StoreError::Statement(_) => {
                tracing::error!(error = %chain(error), "the database failed a request of the API");
                Kind::Internal.problem("the master failed on this request; its log says why")
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}

impl From<BadLabels> for Problem {
    fn from(error: BadLabels) -> Self {
        Kind::Invalid.problem(error.to_string())
    }
}

impl From<BadPermission> for Problem {
    fn from(error: BadPermission) -> Self {
        Kind::Invalid.problem(error.to_string())
    }
}

impl From<AddAgentError> for Problem {
    fn from(error: AddAgentError) -> Self {
        match error {
            AddAgentError::Exists | AddAgentError::ExternalIdTaken => Kind::Conflict.problem(error.to_string()),
            AddAgentError::Store(error) => error.into(),
        }
    }
}

impl From<PatchAgentError> for Problem {
    fn from(error: PatchAgentError) -> Self {
        match error {
            PatchAgentError::NotFound => not_found(),
            PatchAgentError::ExternalIdTaken => Kind::Conflict.problem(error.to_string()),
            PatchAgentError::Store(error) => error.into(),
        }
    }
}

impl From<CreateTokenError> for Problem {
    fn from(error: CreateTokenError) -> Self {
        match error {
            CreateTokenError::Name | CreateTokenError::NoPermission | CreateTokenError::TooLong(_) => {
                Kind::Invalid.problem(error.to_string())
            }
            CreateTokenError::Permissions(_) => Kind::Forbidden.problem(error.to_string()),
            CreateTokenError::Store(error) => error.into(),
        }
    }
}

impl From<HashError> for Problem {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Busy => Kind::Busy.problem(error.to_string()).retry_after(1),
            HashError::Failed(cause) => {
                tracing::error!(%cause, "a password could not be hashed");
                Kind::Internal.problem("the master failed on this request; its log says why")
            }
        }
    }
}

impl From<TooMany> for Problem {
    fn from(error: TooMany) -> Self {
        let seconds = u16::try_from(error.retry_after.as_secs().max(1)).unwrap_or(u16::MAX);
        Kind::TooMany.problem(error.to_string()).retry_after(seconds)
    }
}

impl From<PersonError> for Problem {
    fn from(error: PersonError) -> Self {
        match error {
            PersonError::Unknown => not_found(),
            PersonError::Name | PersonError::Password(_) => Kind::Invalid.problem(error.to_string()),
            PersonError::Exists => Kind::Conflict.problem(error.to_string()),
            PersonError::Above(_) => Kind::Forbidden.problem(error.to_string()),
            PersonError::LastAdmin => Kind::LastAdmin.problem(error.to_string()),
            PersonError::Hash(error) => error.into(),
            PersonError::Store(error) => error.into(),
        }
    }
}

impl From<LoginError> for Problem {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Wrong => Kind::Unauthorized.problem(error.to_string()),
            LoginError::CodeMissing | LoginError::CodeWrong => Kind::TotpRequired.problem(error.to_string()),
            LoginError::TooMany(error) => error.into(),
            LoginError::Hash(error) => error.into(),
            LoginError::Store(error) => error.into(),
        }
    }
}

impl From<SetupError> for Problem {
    fn from(error: SetupError) -> Self {
        match error {
            SetupError::Over => nothing_here(),
            SetupError::WrongToken => Kind::Unauthorized.problem(error.to_string()),
            SetupError::Person(error) => error.into(),
            SetupError::Login(error) => error.into(),
        }
    }
}

impl From<ProofError> for Problem {
    fn from(error: ProofError) -> Self {
        match error {
            ProofError::Over => Kind::Unauthorized.problem("the session is over; sign in again"),
            ProofError::WrongPassword | ProofError::WrongCode => Kind::WrongProof.problem(error.to_string()),
            ProofError::TotpOn | ProofError::TotpOff => Kind::Conflict.problem(error.to_string()),
            ProofError::NewPassword(_) => Kind::Invalid.problem(error.to_string()),
            ProofError::TooMany(error) => error.into(),
            ProofError::Hash(error) => error.into(),
            ProofError::Store(error) => error.into(),
        }
    }
}

impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Self {
        match &error {
            OpenError::Offline => {
                Kind::AgentOffline.problem("the agent is not connected; `landline agents info` says since when and why")
            }
            OpenError::NoVisit(_) => {
                Kind::AgentOffline.problem(format!("{error}; `landline agents info` says when it last did"))
            }
            OpenError::Lost => Kind::AgentOffline.problem("the line was lost before the agent took it; try again"),
            OpenError::Refused(refused) => refusal(refused.code, &refused.message),
            OpenError::TooSlow(_) => Kind::AgentTimeout.problem(error.to_string()),
            OpenError::Busy => Kind::Busy.problem(error.to_string()).retry_after(1),
            OpenError::Broken(_) => Kind::AgentFailed.problem(error.to_string()),
        }
    }
}

impl From<ShellError> for Problem {
    fn from(error: ShellError) -> Self {
        match error {
            ShellError::Open(error) => error.into(),
            ShellError::Store(error) => error.into(),
            ShellError::Recording(cause) => {
                tracing::error!(%cause, "a shell was not opened: its recording cannot be written");
                Kind::RecordingFailed
                    .problem("no session may go unrecorded; is there room on the disk of the master's data folder?")
            }
            ShellError::TooLarge => Kind::Invalid.problem(error.to_string()),
        }
    }
}

impl From<ConnectError> for Problem {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Open(error) => error.into(),
            ConnectError::Store(error) => error.into(),
        }
    }
}

impl From<TransferError> for Problem {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Open(error) => error.into(),
            TransferError::Store(error) => error.into(),
            TransferError::Failed { code, message, offset } => {
                let problem = refusal(code, &message);
                match offset {
                    Some(offset) => problem.offset(offset),
                    None => problem,
                }
            }
            TransferError::Lost(_) => Kind::AgentOffline.problem(error.to_string()),
            TransferError::Stalled(_) => Kind::Timeout.problem(error.to_string()),
            TransferError::Cut => Kind::BadRequest.problem(error.to_string()),
            TransferError::Unknown(_) | TransferError::OutcomeUnknown(_) => {
                Kind::AgentTimeout.problem(error.to_string())
            }
            TransferError::TooLarge => Kind::TooLarge.problem(error.to_string()),
        }
    }
}

/// What an agent answered in place of doing it.
pub(super) fn refusal(code: Code, message: &str) -> Problem {
    let kind = match code {
        Code::POLICY => Kind::Policy,
        Code::REPLAYED => Kind::Replayed,
        Code::STALE => Kind::Stale,
        Code::BUSY => Kind::Busy,
        Code::SPAWN_FAILED => Kind::SpawnFailed,
        Code::NOT_FOUND => Kind::FileNotFound,
        Code::OUTSIDE_ROOTS => Kind::OutsideRoots,
        Code::READ_ONLY => Kind::ReadOnly,
        Code::EXISTS => Kind::FileExists,
        Code::NOT_A_FILE => Kind::NotAFile,
        Code::NOT_A_FOLDER => Kind::NotAFolder,
        Code::NOT_EMPTY => Kind::NotEmpty,
        Code::NO_ACCESS => Kind::NoAccess,
        Code::NO_SPACE => Kind::NoSpace,
        Code::SOURCE_CHANGED => Kind::SourceChanged,
        Code::WRONG_HASH => Kind::WrongHash,
        Code::BAD_OFFSET => Kind::BadOffset,
        Code::BAD_ARCHIVE => Kind::BadArchive,
        Code::IO_FAILED => Kind::IoFailed,
        Code::INVALID | Code::UNKNOWN_OPERATION | Code::MALFORMED | Code::TOO_LARGE => Kind::AgentRefused,
        _ => Kind::AgentFailed,
    };
    let text = if message.is_empty() { code.meaning().unwrap_or("the agent gave an unknown code") } else { message };
    kind.problem(text)
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotFresh(not_fresh) => match not_fresh.code() {
                Code::REPLAYED => Kind::Replayed.problem("a command with this id was sent before; take a new id"),
                Code::STALE => {
                    Kind::Stale.problem(format!("{not_fresh}; set this machine's clock and send the present time"))
                }
                _ => Kind::Busy.problem(not_fresh.to_string()).retry_after(30),
            },
            CallError::BadId | CallError::BadName | CallError::PayloadTooLarge => {
                Kind::Invalid.problem(error.to_string())
            }
            CallError::Open(error) => error.into(),
            CallError::Store(error) => error.into(),
            CallError::OutcomeUnknown => Kind::AgentTimeout.problem(error.to_string()),
        }
    }
}

impl From<ExecError> for Problem {
    fn from(error: ExecError) -> Self {
        match error {
            ExecError::TooLarge => Kind::TooLarge.problem(error.to_string()),
            ExecError::Open(OpenError::Lost) => Kind::AgentTimeout
                .problem("the line was lost while it was started; whether it runs is not known, `GET /execs` tells when the agent is back"),
            ExecError::Open(error) => error.into(),
            ExecError::Store(error) => error.into(),
        }
    }
}

impl From<CreateError> for Problem {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Invalid(_) | CreateError::TtlTooLong { .. } => Kind::Invalid.problem(error.to_string()),
            CreateError::UnknownAgent => not_found(),
            CreateError::Suspended => Kind::AgentSuspended.problem(error.to_string()),
            CreateError::KeyReused => Kind::KeyReused.problem(error.to_string()),
            CreateError::Stopping => Kind::ShuttingDown.problem(error.to_string()).retry_after(5),
            CreateError::Port(error) => port(&error),
            CreateError::Store(error) => error.into(),
        }
    }
}

fn port(error: &PortError) -> Problem {
    tracing::warn!(error = %chain(error), "no listener for a tunnel");
    Kind::PortsExhausted.problem(format!("{error}; close tunnels, or widen `tunnel.port_range`"))
}

impl From<ActError> for Problem {
    fn from(error: ActError) -> Self {
        match error {
            ActError::Unknown => not_found(),
            ActError::Ended => Kind::TunnelClosed.problem("the tunnel is over; open a new one"),
            ActError::TooSlow => Kind::Busy.problem(error.to_string()).retry_after(1),
            ActError::Store(error) => Self::from(error.as_ref()),
        }
    }
}

impl From<ExtendError> for Problem {
    fn from(error: ExtendError) -> Self {
        match error {
            ExtendError::Standing | ExtendError::AtCap => Kind::NotExtendable.problem(error.to_string()),
            ExtendError::Act(error) => error.into(),
        }
    }
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
