//! The metrics of one master, in a registry of its own. Every label comes from a fixed set: labels are `&'static str`, so
//! that nothing a peer sent can become a series (SECURITY R60). No agent ids.

use std::cell::RefCell;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramTimer, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
    core::{Collector, Desc, GenericGauge},
};
use proto::{code::Code, control::Carrier};

/// Seconds; from a loopback dial to a slow exec.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Why the metrics could not be made: a name used twice, which a test would have found.
#[derive(Debug, thiserror::Error)]
#[error("metrics")]
pub struct MetricsError(#[from] prometheus::Error);

/// One metric as it is declared, whether or not it has a series yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub name: String,
    pub labels: Vec<String>,
}

/// All metrics of one master.
pub struct Metrics {
    registry: Registry,
    described: Vec<Described>,
    agents_connected: IntGaugeVec,
    agent_connects: IntCounterVec,
    agent_visits: IntCounterVec,
    carrier_switches: IntCounterVec,
    agent_disconnects: IntCounterVec,
    handshake_seconds: Histogram,
    heartbeats: IntCounterVec,
    streams_open: IntGaugeVec,
    stream_opens: IntCounterVec,
    stream_open_seconds: HistogramVec,
    shells_open: IntGauge,
    tunnels: IntGaugeVec,
    tunnel_transitions: IntCounterVec,
    tunnel_ready_seconds: Histogram,
    tunnel_connections_open: IntGauge,
    tunnel_bytes: IntCounterVec,
    tunnel_dial_failures: IntCounterVec,
    gateway_requests: IntCounterVec,
    commands: IntCounterVec,
    command_seconds: HistogramVec,
    transfers: IntCounterVec,
    transfer_bytes: IntCounterVec,
    line_rtt_seconds: Histogram,
    line_lost_packets: IntCounter,
    auth_failures: IntCounterVec,
    store_seconds: HistogramVec,
    panics: IntCounter,
}

/// Holds a gauge one higher until dropped.
pub struct GaugeGuard(IntGauge);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The label of a code: its word, or `other` for one this build does not know.
pub fn code_label(code: Code) -> &'static str {
    code.word().unwrap_or("other")
}

impl Metrics {
    pub fn new() -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let make = Maker { registry: &registry, described: RefCell::default() };
        make.process()?;
        let build = make.gauges("landline_build_info", "Always 1; the version is the label.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            agents_connected: make.gauges(
                "landline_agents_connected",
                "Agents with a line, by carrier.",
                &["carrier"],
            )?,
            agent_connects: make.counters(
                "landline_agent_connects_total",
                "Attempts of agents to connect, by carrier and result.",
                &["carrier", "result"],
            )?,
            agent_visits: make.counters(
                "landline_agent_visits_total",
                "Visits of on-demand agents on which nothing was to be done, by carrier.",
                &["carrier"],
            )?,
            carrier_switches: make.counters(
                "landline_carrier_switches_total",
                "Agents that moved to another carrier while they had a line, by the new carrier.",
                &["to"],
            )?,
            agent_disconnects: make.counters(
                "landline_agent_disconnects_total",
                "Lines that ended, by reason.",
                &["reason"],
            )?,
            handshake_seconds: make.histogram("landline_handshake_seconds", "From the first packet to Welcome.")?,
            heartbeats: make.counters("landline_heartbeats_total", "Heartbeats of agents, by result.", &["result"])?,
            streams_open: make.gauges("landline_streams_open", "Open work streams, by class.", &["class"])?,
            stream_opens: make.counters(
                "landline_stream_opens_total",
                "Work streams asked for, by class and result.",
                &["class", "result"],
            )?,
            stream_open_seconds: make.histograms(
                "landline_stream_open_seconds",
                "From asking for a work stream to the agent's answer.",
                &["class"],
            )?,
            shells_open: make.gauge("landline_shells_open", "Shell sessions that run.")?,
            tunnels: make.gauges("landline_tunnels", "Tunnels that are pending or active.", &["state"])?,
            tunnel_transitions: make.counters(
                "landline_tunnel_transitions_total",
                "State changes of tunnels, by new state and reason.",
                &["to", "reason"],
            )?,
            tunnel_ready_seconds: make.histogram("landline_tunnel_ready_seconds", "From request to active tunnel.")?,
            tunnel_connections_open: make
                .gauge("landline_tunnel_connections_open", "Open connections on all tunnels.")?,
            tunnel_bytes: make.counters(
                "landline_tunnel_bytes_total",
                "Bytes relayed by tunnels: `in` towards the target, `out` from it.",
                &["direction"],
            )?,
            tunnel_dial_failures: make.counters(
                "landline_tunnel_dial_failures_total",
                "Dials of targets that failed, by reason.",
                &["reason"],
            )?,
            gateway_requests: make.counters(
                "landline_gateway_requests_total",
                "Requests to machines' own pages: `ok` where the target answered, else why not.",
                &["result"],
            )?,
            commands: make.counters(
                "landline_commands_total",
                "Commands and execs, by kind and result.",
                &["kind", "result"],
            )?,
            command_seconds: make.histograms("landline_command_seconds", "How long they took, by kind.", &["kind"])?,
            transfers: make.counters(
                "landline_transfers_total",
                "Transfers of files that ended, by result: ok, cut or failed.",
                &["result"],
            )?,
            transfer_bytes: make.counters(
                "landline_transfer_bytes_total",
                "Bytes of files: `in` towards agents, `out` from them.",
                &["direction"],
            )?,
            line_rtt_seconds: make
                .histogram("landline_line_rtt_seconds", "Round-trip times, one sample per line and heartbeat.")?,
            line_lost_packets: make
                .counter("landline_line_lost_packets_total", "Packets lost on lines, as QUIC saw it.")?,
            auth_failures: make.counters(
                "landline_auth_failures_total",
                "Refused proofs of identity, by kind.",
                &["kind"],
            )?,
            store_seconds: make.histograms(
                "landline_store_seconds",
                "Database operations, waiting included.",
                &["operation"],
            )?,
            panics: make.counter("landline_panics_total", "Handlers that panicked; each is a bug.")?,
            described: make.described.into_inner(),
            registry,
        };
        metrics.begin();
        Ok(metrics)
    }

    /// Series whose labels are known beforehand stand at zero from the start: a first increase is then seen as one.
    fn begin(&self) {
        for carrier in [Carrier::Udp, Carrier::WebSocket] {
            self.agents_connected.with_label_values(&[carrier.word()]).set(0);
        }
        let words: [(&IntCounterVec, &[&str]); 5] = [
            (&self.carrier_switches, &["udp", "wss"]),
            (&self.heartbeats, &["ok", "late", "missed"]),
            (&self.tunnel_bytes, &["in", "out"]),
            (&self.transfer_bytes, &["in", "out"]),
            (&self.transfers, &["ok", "cut", "failed"]),
        ];
        for (counter, words) in words {
            words.iter().for_each(|word| counter.with_label_values(&[*word]).reset());
        }
        for state in ["pending", "active"] {
            self.tunnels.with_label_values(&[state]).set(0);
        }
    }

    /// Every metric there is: what dashboards and alerts may name.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// The exposition text, and its content type.
    pub fn render(&self) -> Result<(String, &'static str), MetricsError> {
        let encoder = TextEncoder::new();
        let mut text = Vec::new();
        encoder.encode(&self.registry.gather(), &mut text)?;
        Ok((String::from_utf8_lossy(&text).into_owned(), prometheus::TEXT_FORMAT))
    }

    /// An attempt to connect that came to its end: `None` for Welcome, else the code of the refusal.
    pub fn agent_connect(&self, carrier: Carrier, refused: Option<Code>) {
        let result = refused.map_or("ok", code_label);
        self.agent_connects.with_label_values(&[carrier.word(), result]).inc();
    }

    /// Counts a connected agent until dropped.
    pub fn agent_connected(&self, carrier: Carrier) -> GaugeGuard {
        raised(self.agents_connected.with_label_values(&[carrier.word()]))
    }

    /// A visit with nothing to do.
    pub fn visit(&self, carrier: Carrier) {
        self.agent_visits.with_label_values(&[carrier.word()]).inc();
    }

    pub fn carrier_switch(&self, to: Carrier) {
        self.carrier_switches.with_label_values(&[to.word()]).inc();
    }

    pub fn agent_disconnect(&self, reason: Code) {
        self.agent_disconnects.with_label_values(&[code_label(reason)]).inc();
    }

    pub fn handshake(&self, seconds: f64) {
        self.handshake_seconds.observe(seconds);
    }

    /// `ok`, `late` or `missed`.
    pub fn heartbeat(&self, result: &'static str) {
        self.heartbeats.with_label_values(&[result]).inc();
    }

    /// Counts an open work stream of this class (`Operation::word`) until dropped.
    pub fn stream_open(&self, class: &'static str) -> GaugeGuard {
        raised(self.streams_open.with_label_values(&[class]))
    }

    /// Counts a shell session until dropped.
    pub fn shell_open(&self) -> GaugeGuard {
        raised(self.shells_open.clone())
    }

    /// The answer to a work stream's header, `None` for Opened.
    pub fn stream_answered(&self, class: &'static str, refused: Option<Code>, seconds: f64) {
        self.stream_opens.with_label_values(&[class, refused.map_or("ok", code_label)]).inc();
        self.stream_open_seconds.with_label_values(&[class]).observe(seconds);
    }

    /// Counts a tunnel in this state (`pending` or `active`) until dropped.
    pub fn tunnel(&self, state: &'static str) -> GaugeGuard {
        raised(self.tunnels.with_label_values(&[state]))
    }

    pub fn tunnel_transition(&self, to: &'static str, reason: &'static str) {
        self.tunnel_transitions.with_label_values(&[to, reason]).inc();
    }

    pub fn tunnel_ready(&self, seconds: f64) {
        self.tunnel_ready_seconds.observe(seconds);
    }

    /// Counts an open connection on a tunnel until dropped.
    pub fn tunnel_connection(&self) -> GaugeGuard {
        raised(self.tunnel_connections_open.clone())
    }

    /// Bytes relayed: `bytes_in` towards the target, `bytes_out` from it.
    pub fn tunnel_bytes(&self, bytes_in: u64, bytes_out: u64) {
        self.tunnel_bytes.with_label_values(&["in"]).inc_by(bytes_in);
        self.tunnel_bytes.with_label_values(&["out"]).inc_by(bytes_out);
    }

    /// A request to a tunnel's origin: `ok`, or one of the gateway's words.
    pub fn gateway_request(&self, result: &'static str) {
        self.gateway_requests.with_label_values(&[result]).inc();
    }

    pub fn tunnel_dial_failure(&self, reason: Code) {
        self.tunnel_dial_failures.with_label_values(&[code_label(reason)]).inc();
    }

    /// A command or exec that ended: `kind` is `command` or `exec`, `result` one of a few words of the caller.
    pub fn command(&self, kind: &'static str, result: &'static str, seconds: f64) {
        self.commands.with_label_values(&[kind, result]).inc();
        self.command_seconds.with_label_values(&[kind]).observe(seconds);
    }

    /// A transfer that ended: `ok`, `cut` or `failed`.
    pub fn transfer(&self, result: &'static str) {
        self.transfers.with_label_values(&[result]).inc();
    }

    pub fn transfer_bytes(&self, direction: &'static str, bytes: u64) {
        self.transfer_bytes.with_label_values(&[direction]).inc_by(bytes);
    }

    pub fn line_rtt(&self, seconds: f64) {
        self.line_rtt_seconds.observe(seconds);
    }

    pub fn line_lost_packets(&self, packets: u64) {
        self.line_lost_packets.inc_by(packets);
    }

    /// `enrol`, `hello`, `renew`, `api` …
    pub fn auth_failure(&self, kind: &'static str) {
        self.auth_failures.with_label_values(&[kind]).inc();
    }

    /// Observes the time until dropped.
    pub fn store_timer(&self, operation: &'static str) -> HistogramTimer {
        self.store_seconds.with_label_values(&[operation]).start_timer()
    }

    pub fn panicked(&self) {
        self.panics.inc();
    }
}

fn raised(gauge: IntGauge) -> GaugeGuard {
    gauge.inc();
    GaugeGuard(gauge)
}

/// Makes and registers.
struct Maker<'a> {
    registry: &'a Registry,
    described: RefCell<Vec<Described>>,
}

impl Maker<'_> {
    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C, prometheus::Error> {
        self.add(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn add(&self, collector: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        let described = |desc: &&Desc| Described { name: desc.fq_name.clone(), labels: desc.variable_labels.clone() };
        self.described.borrow_mut().extend(collector.desc().iter().map(described));
        self.registry.register(collector)
    }

    /// Memory, processor time and descriptors of this process, where the system tells them.
    fn process(&self) -> Result<(), prometheus::Error> {
        #[cfg(target_os = "linux")]
        self.add(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(())
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(GenericGauge::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))?)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        self.register(HistogramVec::new(options, labels)?)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    use super::*;

    /// Every metric with at least one series.
    fn filled() -> Metrics {
        let metrics = Metrics::new().unwrap();
        metrics.agent_connect(Carrier::Udp, None);
        metrics.agent_connect(Carrier::WebSocket, Some(Code(0x7fff)));
        drop(metrics.agent_connected(Carrier::Udp));
        metrics.agent_disconnect(Code::SILENT);
        metrics.handshake(0.01);
        metrics.heartbeat("ok");
        drop(metrics.stream_open("forward"));
        metrics.stream_answered("forward", Some(Code::POLICY), 0.001);
        drop(metrics.tunnel("active"));
        metrics.tunnel_transition("active", "probe_passed");
        metrics.tunnel_ready(0.02);
        drop(metrics.tunnel_connection());
        metrics.tunnel_bytes(1, 2);
        metrics.tunnel_dial_failure(Code::TARGET_REFUSED);
        metrics.command("exec", "ok", 1.0);
        metrics.transfer("ok");
        metrics.transfer_bytes("in", 7);
        metrics.line_rtt(0.005);
        metrics.line_lost_packets(3);
        metrics.auth_failure("enrol");
        drop(metrics.store_timer("agents.add"));
        metrics.panicked();
        metrics
    }

    #[test]
    fn every_name_is_there() {
        let (text, content_type) = filled().render().unwrap();
        assert!(content_type.starts_with("text/plain"));
        for line in [
            "landline_agents_connected{carrier=\"udp\"} 0",
            "landline_agent_connects_total{carrier=\"wss\",result=\"other\"} 1",
            "landline_carrier_switches_total{to=\"wss\"} 0",
            "landline_agent_disconnects_total{reason=\"silent\"} 1",
            "landline_handshake_seconds_count 1",
            "landline_heartbeats_total{result=\"ok\"} 1",
            "landline_streams_open{class=\"forward\"} 0",
            "landline_stream_opens_total{class=\"forward\",result=\"policy\"} 1",
            "landline_stream_open_seconds_count{class=\"forward\"} 1",
            "landline_tunnels{state=\"active\"} 0",
            "landline_tunnel_transitions_total{reason=\"probe_passed\",to=\"active\"} 1",
            "landline_tunnel_ready_seconds_count 1",
            "landline_tunnel_connections_open 0",
            "landline_tunnel_bytes_total{direction=\"out\"} 2",
            "landline_tunnel_dial_failures_total{reason=\"target_refused\"} 1",
            "landline_commands_total{kind=\"exec\",result=\"ok\"} 1",
            "landline_command_seconds_count{kind=\"exec\"} 1",
            "landline_transfers_total{result=\"ok\"} 1",
            "landline_transfer_bytes_total{direction=\"in\"} 7",
            "landline_line_rtt_seconds_count 1",
            "landline_line_lost_packets_total 3",
            "landline_auth_failures_total{kind=\"enrol\"} 1",
            "landline_store_seconds_count{operation=\"agents.add\"} 1",
            "landline_panics_total 1",
            concat!("landline_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn guards_count_what_lives() {
        let metrics = Metrics::new().unwrap();
        let guards = [metrics.tunnel_connection(), metrics.tunnel_connection()];
        assert_eq!(metrics.tunnel_connections_open.get(), 2);
        drop(guards);
        assert_eq!(metrics.tunnel_connections_open.get(), 0);
    }

    /// Where promtool is installed, as `make test` sees to.
    #[test]
    fn promtool_has_nothing_to_say() {
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let Ok(mut child) = promtool.spawn() else {
            eprintln!("promtool is not installed: not checked");
            return;
        };
        let (text, _) = filled().render().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
}
