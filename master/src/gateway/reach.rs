//! Whether the target can be reached at all: the tunnel's state and the agent's line, before a request is sent and after
//! one failed.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{Inner, trouble::Trouble};
use crate::{
    fleet::LinkState,
    store::tunnels::{Tunnel, TunnelStatus},
    tunnel::visits::Visit,
};

/// A line that is back within this time is not worth a page.
const PATIENCE: Duration = Duration::from_secs(2);

impl Inner {
    /// The visit's tunnel, once its agent is there.
    pub(super) async fn target(&self, visit: &Visit) -> Result<Arc<Tunnel>, Trouble> {
        let Some(row) = self.parts.tunnels.open_row(visit.tunnel) else { return Err(self.ended(visit).await) };
        let mut link = self.parts.fleet.watch(&visit.agent);
        let up = link.wait_for(|state| matches!(state, LinkState::Up { .. }));
        if !matches!(timeout(PATIENCE, up).await, Ok(Ok(_))) || row.status == TunnelStatus::Pending {
            return Err(Trouble::Reconnecting);
        }
        Ok(row)
    }

    /// Resolves when the agent's line has fallen silent or is gone.
    pub(super) async fn until_away(&self, visit: &Visit) {
        let mut link = self.parts.fleet.watch(&visit.agent);
        let unknown = link.wait_for(|state| !matches!(state, LinkState::Up { .. })).await.is_err();
        if unknown {
            // Nobody will ever say so: the master ends.
            std::future::pending().await
        }
    }

    /// Why a request failed: where the line or the tunnel went away under it, that is the reason.
    pub(super) async fn explain(&self, trouble: Trouble, visit: &Visit) -> Trouble {
        let by_line = matches!(trouble, Trouble::Broken(_) | Trouble::Tls { .. } | Trouble::Reconnecting);
        if !by_line {
            return trouble;
        }
        if self.parts.tunnels.status(visit.tunnel).is_none() {
            return self.ended(visit).await;
        }
        match self.parts.fleet.link(&visit.agent) {
            Some(LinkState::Up { .. }) => trouble,
            Some(LinkState::Suspect { .. } | LinkState::Down { .. }) | None => Trouble::Reconnecting,
        }
    }

    async fn ended(&self, visit: &Visit) -> Trouble {
        match self.parts.tunnels.find(visit.tunnel).await {
            Ok(view) => {
                let reason = view.and_then(|view| view.row.closed_reason);
                Trouble::Ended { reason: reason.unwrap_or_else(|| "removed".to_owned()) }
            }
            Err(error) => {
                tracing::warn!(%error, "a closed tunnel's row could not be read");
                Trouble::Ours
            }
        }
    }
}
