//! What can go wrong with a tunnel, one enum per operation.

use std::{sync::Arc, time::Duration};

use certs::state::StateError;

use super::ports::PortError;
use crate::store::StoreError;

/// Why there is no new tunnel. Nothing of it was left behind.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("{0}")]
    Invalid(&'static str),
    #[error("a tunnel lives {} s at most", .most.as_secs())]
    TtlTooLong { most: Duration },
    #[error("there is no agent of this name")]
    UnknownAgent,
    #[error("the agent is suspended; resume it first")]
    Suspended,
    #[error("this idempotency key was used for another tunnel")]
    KeyReused,
    #[error("the master is shutting down")]
    Stopping,
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why something could not be done to a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error("there is no such tunnel")]
    Unknown,
    #[error("the tunnel is over")]
    Ended,
    #[error("the tunnel did not answer in time; try again")]
    TooSlow,
    /// What concerns the sockets is done; the row follows as soon as the database is back.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
}

impl From<StoreError> for ActError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// Why a tunnel was not extended.
#[derive(Debug, thiserror::Error)]
pub enum ExtendError {
    #[error("a standing tunnel does not expire")]
    Standing,
    #[error("the tunnel has reached the longest life a tunnel may have; open a new one")]
    AtCap,
    #[error(transparent)]
    Act(#[from] ActError),
}

/// Why the tunnels could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the tunnels of the last run could not be put in order")]
    Reconcile(#[from] StoreError),
    #[error("the folder of the tunnels' unix sockets cannot be used")]
    Sockets(#[from] StateError),
}
