//! The one decision (SECURITY R13): may this principal do this to that. What is not allowed here is denied.

use super::{Labels, Permission, Principal};

/// Everything the API can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    AgentsList,
    AgentRead,
    AgentAdd,
    AgentChange,
    AgentRemove,
    AgentResecret,
    /// A new key for an agent that is there.
    AgentRotate,
    CommandRun,
    ExecRun,
    ExecCancel,
    /// Its state and output.
    ExecRead,
    ShellOpen,
    /// Ends it.
    ShellClose,
    ShellsList,
    ShellRead,
    /// See what it shows; to type as well one must have opened it.
    ShellAttach,
    RecordingRead,
    FilesRead,
    FilesWrite,
    /// One connection to a target, without a tunnel.
    Connect,
    TunnelsList,
    TunnelRead,
    TunnelOpen,
    /// The caller's heartbeat.
    TunnelBeat,
    TunnelExtend,
    TunnelClose,
    /// See the target's pages in a browser.
    TunnelEnter,
    /// Take the target's new certificate for right.
    TunnelTrust,
    EventsRead,
    TokensList,
    TokenCreate,
    TokenRevoke,
    /// Rows of the trail: under a selector those of the agents it selects.
    AuditRead,
    /// The chain as a whole.
    AuditVerify,
    /// Enrolment keys, and machines that wait.
    EnrolList,
    EnrolKeyCreate,
    EnrolKeyRevoke,
    /// Approves or rejects a machine.
    EnrolDecide,
    OperatorsList,
    /// One of them, with its sessions.
    OperatorRead,
    OperatorAdd,
    /// Its role, selector, password, TOTP and sessions.
    OperatorChange,
    OperatorRemove,
    /// Any of the four calls of the original panel.
    PanelCall,
}

/// What it is done to.
#[derive(Debug, Clone, Copy)]
pub enum Object<'a> {
    /// Nothing in particular: a list, which the caller then filters by the principal's selector.
    Everything,
    /// An agent with its labels, or something that belongs to it: a tunnel, an exec, a command.
    Agent(&'a Labels),
    /// A token.
    Token,
    /// A person's account.
    Operator,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The principal lacks the permission, whatever the object: this may be said.
    #[error("this takes the permission {0}, for the whole fleet where it is about more than agents")]
    Permission(Permission),
    /// The object is outside the principal's selector: answer exactly as for an object that does not exist (R14).
    #[error("no such object")]
    Hidden,
}

impl Action {
    pub const ALL: &'static [Self] = &[
        Self::AgentsList,
        Self::AgentRead,
        Self::AgentAdd,
        Self::AgentChange,
        Self::AgentRemove,
        Self::AgentResecret,
        Self::AgentRotate,
        Self::CommandRun,
        Self::ExecRun,
        Self::ExecCancel,
        Self::ExecRead,
        Self::ShellOpen,
        Self::ShellClose,
        Self::ShellsList,
        Self::ShellRead,
        Self::ShellAttach,
        Self::RecordingRead,
        Self::FilesRead,
        Self::FilesWrite,
        Self::Connect,
        Self::TunnelsList,
        Self::TunnelRead,
        Self::TunnelOpen,
        Self::TunnelBeat,
        Self::TunnelExtend,
        Self::TunnelClose,
        Self::TunnelEnter,
        Self::TunnelTrust,
        Self::EventsRead,
        Self::TokensList,
        Self::TokenCreate,
        Self::TokenRevoke,
        Self::AuditRead,
        Self::AuditVerify,
        Self::EnrolList,
        Self::EnrolKeyCreate,
        Self::EnrolKeyRevoke,
        Self::EnrolDecide,
        Self::OperatorsList,
        Self::OperatorRead,
        Self::OperatorAdd,
        Self::OperatorChange,
        Self::OperatorRemove,
        Self::PanelCall,
    ];

    /// The permission it takes.
    pub fn permission(self) -> Permission {
        match self {
            Self::AgentsList | Self::AgentRead => Permission::AgentsRead,
            Self::AgentAdd | Self::AgentChange | Self::AgentRemove | Self::AgentResecret | Self::AgentRotate => {
                Permission::AgentsWrite
            }
            Self::CommandRun => Permission::CommandsRun,
            Self::ExecRun | Self::ExecCancel | Self::ExecRead => Permission::ExecRun,
            Self::ShellOpen | Self::ShellClose => Permission::ShellsOpen,
            Self::ShellsList | Self::ShellRead | Self::ShellAttach | Self::RecordingRead => Permission::ShellsWatch,
            Self::FilesRead => Permission::FilesRead,
            Self::FilesWrite => Permission::FilesWrite,
            Self::TunnelsList | Self::TunnelRead => Permission::TunnelsRead,
            Self::TunnelOpen
            | Self::TunnelBeat
            | Self::TunnelExtend
            | Self::TunnelClose
            | Self::TunnelEnter
            | Self::TunnelTrust
            | Self::Connect => Permission::TunnelsWrite,
            Self::EventsRead => Permission::EventsRead,
            Self::TokensList => Permission::TokensRead,
            Self::TokenCreate | Self::TokenRevoke => Permission::TokensWrite,
            Self::AuditRead | Self::AuditVerify => Permission::AuditRead,
            Self::EnrolList => Permission::EnrolRead,
            Self::EnrolKeyCreate | Self::EnrolKeyRevoke | Self::EnrolDecide => Permission::EnrolWrite,
            Self::OperatorsList | Self::OperatorRead => Permission::OperatorsRead,
            Self::OperatorAdd | Self::OperatorChange | Self::OperatorRemove => Permission::OperatorsWrite,
            Self::PanelCall => Permission::PanelCall,
        }
    }

    /// Whether a person's proof must be fresh for it (step-up): what acts on machines with no further question.
    pub fn needs_fresh_proof(self) -> bool {
        matches!(self, Self::ShellOpen | Self::ExecRun)
    }

    /// Whether it is about the fleet as a whole and shows what no selector can narrow.
    fn needs_whole_fleet(self) -> bool {
        match self {
            Self::TokensList
            | Self::TokenRevoke
            | Self::AuditVerify
            | Self::OperatorsList
            | Self::OperatorRead
            | Self::OperatorAdd
            | Self::OperatorChange
            | Self::OperatorRemove => true,
            Self::AgentsList
            | Self::AgentRead
            | Self::AgentAdd
            | Self::AgentChange
            | Self::AgentRemove
            | Self::AgentResecret
            | Self::AgentRotate
            | Self::CommandRun
            | Self::ExecRun
            | Self::ExecCancel
            | Self::ExecRead
            | Self::ShellOpen
            | Self::ShellClose
            | Self::ShellsList
            | Self::ShellRead
            | Self::ShellAttach
            | Self::RecordingRead
            | Self::FilesRead
            | Self::FilesWrite
            | Self::Connect
            | Self::TunnelsList
            | Self::TunnelRead
            | Self::TunnelOpen
            | Self::TunnelBeat
            | Self::TunnelExtend
            | Self::TunnelClose
            | Self::TunnelEnter
            | Self::TunnelTrust
            | Self::EventsRead
            | Self::TokenCreate
            | Self::AuditRead
            | Self::EnrolList
            | Self::EnrolKeyCreate
            | Self::EnrolKeyRevoke
            | Self::EnrolDecide
            | Self::PanelCall => false,
        }
    }
}

/// Whether `principal` may do `action` to `object`. For a change of labels ask twice: before and after must be allowed.
pub fn authorise(principal: &Principal, action: Action, object: Object<'_>) -> Result<(), Denied> {
    let permission = action.permission();
    if !principal.permissions.contains(permission) {
        return Err(Denied::Permission(permission));
    }
    let narrowed = !principal.selector.is_everything();
    // A person's own tokens are no business of the fleet's.
    let own = principal.tokens_of().is_some() && matches!(action, Action::TokensList | Action::TokenRevoke);
    if narrowed && action.needs_whole_fleet() && !own {
        return Err(Denied::Permission(permission));
    }
    match object {
        Object::Everything | Object::Token | Object::Operator => Ok(()),
        Object::Agent(labels) if principal.selector.matches(labels) => Ok(()),
        Object::Agent(_) => Err(Denied::Hidden),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;
    use crate::access::Permissions;

    fn principal(permissions: &str, selector: &str) -> Principal {
        Principal::for_tests(permissions.parse().unwrap(), selector.parse().unwrap())
    }

    fn labels(key: &str, value: &str) -> Labels {
        Labels::try_from(BTreeMap::from([(key.to_owned(), value.to_owned())])).unwrap()
    }

    #[test]
    fn nothing_is_allowed_without_its_permission() {
        let labels = Labels::default();
        for action in Action::ALL {
            let others: Permissions = Permissions::all().iter().filter(|p| *p != action.permission()).collect();
            let denied = Denied::Permission(action.permission());
            let without = Principal::for_tests(others, "".parse().unwrap());
            let with = Principal::for_tests([action.permission()].into_iter().collect(), "".parse().unwrap());
            for object in [Object::Everything, Object::Agent(&labels), Object::Token] {
                assert_eq!(authorise(&without, *action, object), Err(denied), "{action:?}");
                assert_eq!(authorise(&with, *action, object), Ok(()), "{action:?}");
            }
        }
        assert_eq!(Action::ALL.iter().collect::<HashSet<_>>().len(), Action::ALL.len());
    }

    #[test]
    fn objects_outside_the_selector_do_not_exist() {
        let narrow = principal("agents:read tunnels:write", "site=home");
        let (home, office) = (labels("site", "home"), labels("site", "office"));
        assert_eq!(authorise(&narrow, Action::AgentRead, Object::Agent(&home)), Ok(()));
        assert_eq!(authorise(&narrow, Action::AgentRead, Object::Agent(&office)), Err(Denied::Hidden));
        assert_eq!(authorise(&narrow, Action::TunnelClose, Object::Agent(&office)), Err(Denied::Hidden));
        assert_eq!(authorise(&narrow, Action::AgentsList, Object::Everything), Ok(()));
    }

    #[test]
    fn a_narrowed_token_sees_neither_tokens_nor_the_whole_chain() {
        let narrow = principal("tokens:read tokens:write audit:read", "site=home");
        for action in [Action::TokensList, Action::TokenRevoke, Action::AuditVerify] {
            assert!(authorise(&narrow, action, Object::Everything).is_err(), "{action:?}");
        }
        for action in [Action::TokenCreate, Action::AuditRead] {
            assert_eq!(authorise(&narrow, action, Object::Everything), Ok(()));
        }
    }
}
