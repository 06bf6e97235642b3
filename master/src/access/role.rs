//! Roles of people: three sets of permissions, each within the next. What a permission opens is `authorise`'s business.

use super::{Permission, Permissions};
use crate::store::words;

words! {
    /// What a person is here for.
    Role {
        /// Looks, and changes nothing.
        Viewer = "viewer",
        /// Works on machines.
        Operator = "operator",
        /// Decides who may, and which machines there are.
        Admin = "admin",
    }
}

const VIEWER: &[Permission] =
    &[Permission::AgentsRead, Permission::TunnelsRead, Permission::EventsRead, Permission::ShellsWatch];

const OPERATOR: &[Permission] = &[
    Permission::CommandsRun,
    Permission::ExecRun,
    Permission::ShellsOpen,
    Permission::FilesRead,
    Permission::FilesWrite,
    Permission::TunnelsWrite,
    Permission::TokensRead,
    Permission::TokensWrite,
    Permission::EnrolRead,
];

impl Role {
    pub fn permissions(self) -> Permissions {
        match self {
            Self::Viewer => VIEWER.iter().copied().collect(),
            Self::Operator => VIEWER.iter().chain(OPERATOR).copied().collect(),
            Self::Admin => Permissions::all(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_holds_the_one_below() {
        let [viewer, operator, admin] = [Role::Viewer, Role::Operator, Role::Admin].map(Role::permissions);
        assert!(viewer.is_subset(&operator) && operator.is_subset(&admin));
        assert_eq!(admin, Permissions::all());
        for permission in [Permission::OperatorsWrite, Permission::AuditRead, Permission::EnrolWrite] {
            assert!(!operator.contains(permission), "{permission}");
        }
        for word in ["agents:read", "events:read", "shells:watch", "tunnels:read"] {
            assert!(viewer.contains(word.parse().unwrap()));
        }
        assert_eq!(viewer.iter().count(), 4, "a viewer looks, and changes nothing");
    }
}
