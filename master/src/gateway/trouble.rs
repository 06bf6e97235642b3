//! Everything that keeps the target's page from the browser, each with its status and its word. The texts stand in
//! `page_text`.

use std::time::Duration;

use axum::http::StatusCode;
use proto::{code::Code, id::TunnelId};

/// Why the gateway answers in the target's place.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The request names no host of a tunnel.
    Misdirected,
    /// A page of another origin sent it.
    Sibling,
    Method,
    /// A path below ours that there is not.
    NotOurs,
    /// No visit: the same for tunnels that exist and tunnels that do not (SECURITY R14).
    NoVisit,
    /// A ticket that was used or ran out, or never was.
    Ticket,
    /// The master's own failure.
    Ours,
    /// The tunnel is over: its closed reason.
    Ended {
        reason: String,
    },
    /// The agent is away, or the tunnel not established yet.
    Reconnecting,
    /// The target was not reached: why, as the agent said.
    Dial(Code),
    Busy,
    /// The target speaks only versions of TLS that are broken.
    OldTls {
        version: String,
    },
    Tls {
        detail: String,
    },
    /// The target shows another certificate than the pinned one.
    Certificate {
        tunnel: TunnelId,
        pinned: [u8; 32],
        found: [u8; 32],
    },
    Silent {
        after: Duration,
    },
    Broken(String),
    HeaderTooLarge,
    /// A redirect to another scheme or port of the same host.
    Beside {
        https: bool,
        host: String,
        port: u16,
    },
    /// A redirect to another host.
    Away {
        address: String,
    },
    Loop,
}

impl Trouble {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Sibling | Self::NoVisit | Self::Ticket => StatusCode::FORBIDDEN,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotOurs => StatusCode::NOT_FOUND,
            Self::Ours => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Ended { .. } => StatusCode::GONE,
            Self::Reconnecting | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Dial(Code::TARGET_TIMEOUT | Code::TOO_SLOW) | Self::Silent { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::Dial(_)
            | Self::OldTls { .. }
            | Self::Tls { .. }
            | Self::Certificate { .. }
            | Self::Broken(_)
            | Self::HeaderTooLarge
            | Self::Beside { .. }
            | Self::Away { .. } => StatusCode::BAD_GATEWAY,
        }
    }

    /// The stable word: in `code`, and as a metric's label.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Misdirected => "misdirected",
            Self::Sibling => "foreign_origin",
            Self::Method => "method_not_allowed",
            Self::NotOurs => "not_found",
            Self::NoVisit => "no_visit",
            Self::Ticket => "ticket",
            Self::Ours => "internal",
            Self::Ended { .. } => "tunnel_closed",
            Self::Reconnecting => "agent_reconnecting",
            Self::Dial(code) => code.word().unwrap_or("other"),
            Self::Busy => "busy",
            Self::OldTls { .. } => "tls_too_old",
            Self::Tls { .. } => "tls_failed",
            Self::Certificate { .. } => "certificate_changed",
            Self::Silent { .. } => "target_silent",
            Self::Broken(_) => "target_broken",
            Self::HeaderTooLarge => "header_too_large",
            Self::Beside { .. } => "redirect_beside",
            Self::Away { .. } => "redirect_away",
            Self::Loop => "redirect_loop",
        }
    }

    /// Seconds after which the same request may well succeed.
    pub(super) fn retry_after(&self) -> Option<u16> {
        match self {
            Self::Reconnecting => Some(2),
            Self::Busy => Some(5),
            _ => None,
        }
    }
}
