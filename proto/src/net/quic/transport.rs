//! Transport parameters and endpoint configuration of each carrier. Opens no socket.

use std::{sync::Arc, time::Duration};

use quinn::{
    EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
    congestion::{BbrConfig, CubicConfig},
};
use ring::hmac;

use super::{
    AGENT_RECEIVE_WINDOW, AGENT_STREAMS, Congestion, EndpointKeys, MASTER_RECEIVE_WINDOW, MASTER_STREAMS,
    STREAM_RECEIVE_WINDOW, Tuning, agent_send_window, master_send_window,
};
use crate::{
    control::Carrier,
    limits::IDLE_TIMEOUT,
    net::{carrier::frames::PACKET_MAX, cid::WorkerConnectionIds},
};

const INITIAL_RTT: Duration = Duration::from_millis(100);
const DATAGRAM_BUFFER: usize = 64 << 10;
const UDP_PAYLOAD_MAX: u16 = 1472;
const MTU_UPPER_BOUND: u16 = 1452;
/// The way to a WebSocket and through it is longer: TCP and TLS on top, often a proxy.
const WSS_INITIAL_RTT: Duration = Duration::from_millis(200);
/// Nothing is lost or reordered inside a WebSocket; what looks like it is TCP waiting for a segment of its own.
const WSS_PACKET_THRESHOLD: u32 = 64;
const WSS_TIME_THRESHOLD: f32 = 2.0;
/// A reset is how an agent learns at once that its master was killed. quinn's default of 20 ms lets 10,000 agents wait 200 s
/// for theirs; with 1 ms three in ten of 2,000 agents that beat every 5 s got none and waited for their next keep-alive.
/// A reset is smaller than what it answers, so that nothing is amplified.
const MIN_RESET_INTERVAL: Duration = Duration::from_micros(250);

pub(super) fn agent(carrier: Carrier, tuning: &Tuning) -> TransportConfig {
    let mut transport = transport(carrier, tuning);
    transport
        .keep_alive_interval(Some(tuning.keep_alive))
        .send_window(agent_send_window(carrier))
        .max_concurrent_bidi_streams(AGENT_STREAMS.into())
        .receive_window(window(AGENT_RECEIVE_WINDOW));
    transport
}

pub(super) fn master(carrier: Carrier, tuning: &Tuning) -> TransportConfig {
    let mut transport = transport(carrier, tuning);
    transport
        .keep_alive_interval(None)
        .send_window(master_send_window(carrier))
        .max_concurrent_bidi_streams(MASTER_STREAMS.into())
        .receive_window(window(MASTER_RECEIVE_WINDOW));
    transport
}

fn transport(carrier: Carrier, tuning: &Tuning) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .max_concurrent_uni_streams(0u32.into())
        .stream_receive_window(window(STREAM_RECEIVE_WINDOW))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER);
    match carrier {
        Carrier::Udp => over_udp(&mut transport, tuning),
        Carrier::WebSocket => over_websocket(&mut transport),
    }
    transport
}

fn over_udp(transport: &mut TransportConfig, tuning: &Tuning) {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_UPPER_BOUND);
    transport.initial_rtt(INITIAL_RTT).mtu_discovery_config(Some(mtu)).enable_segmentation_offload(tuning.gso);
    match tuning.congestion {
        Congestion::Cubic => transport.congestion_controller_factory(Arc::new(CubicConfig::default())),
        Congestion::Bbr => transport.congestion_controller_factory(Arc::new(BbrConfig::default())),
    };
}

/// Offload is free here: a batch is one message. CUBIC whatever is configured, since the congestion is TCP's to find.
fn over_websocket(transport: &mut TransportConfig) {
    transport
        .initial_rtt(WSS_INITIAL_RTT)
        .initial_mtu(PACKET_MAX)
        .min_mtu(PACKET_MAX)
        .mtu_discovery_config(None)
        .packet_threshold(WSS_PACKET_THRESHOLD)
        .time_threshold(WSS_TIME_THRESHOLD)
        .enable_segmentation_offload(true)
        .congestion_controller_factory(Arc::new(CubicConfig::default()));
}

pub(super) fn endpoint(carrier: Carrier, keys: &EndpointKeys) -> Result<EndpointConfig, quinn::ConfigError> {
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &keys.reset)));
    let cid_key = keys.connection_id;
    let payload = match carrier {
        Carrier::Udp => UDP_PAYLOAD_MAX,
        Carrier::WebSocket => PACKET_MAX,
    };
    config
        .cid_generator(move || Box::new(WorkerConnectionIds::new(&cid_key, 0)))
        .min_reset_interval(MIN_RESET_INTERVAL)
        .max_udp_payload_size(payload)?;
    Ok(config)
}

fn window(bytes: u64) -> VarInt {
    VarInt::from_u64(bytes).unwrap_or(VarInt::MAX)
}
