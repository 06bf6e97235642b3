//! Tests of [`Wire`]: each impairment does what its name says and nothing else, and seeds decide.

use super::*;

const MS: Duration = Duration::from_millis(1);
const PACKET: usize = 1_000;

fn wire(shape: Shape) -> Wire {
    Wire { shape, ..Wire::new(7) }
}

/// The fates of `count` packets, one each millisecond.
fn fates(wire: &mut Wire, count: u32) -> Vec<Fate> {
    (0..count).map(|number| wire.packet(MS * number, PACKET, Protocol::Udp)).collect()
}

fn arrivals(fates: &[Fate]) -> Vec<Duration> {
    let arrival = |fate: &Fate| match fate {
        Fate::Arrives(at) | Fate::Twice(at) => Some(*at),
        Fate::Dropped(_) => None,
    };
    fates.iter().filter_map(arrival).collect()
}

fn dropped(fates: &[Fate], why: Why) -> usize {
    fates.iter().filter(|fate| **fate == Fate::Dropped(why)).count()
}

#[test]
fn a_wire_without_a_shape_does_nothing() {
    let fates = fates(&mut wire(Shape::default()), 100);
    assert!(fates.iter().zip(0..).all(|(fate, number)| *fate == Fate::Arrives(MS * number)), "{fates:?}");
}

#[test]
fn delay_is_added_and_jitter_varies_it_without_reordering() {
    let plain = fates(&mut wire(Shape { delay: 20 * MS, ..Shape::default() }), 10);
    assert_eq!(plain[3], Fate::Arrives(23 * MS));
    let mut jittery = wire(Shape { delay: 20 * MS, jitter: 8 * MS, ..Shape::default() });
    let (mut least, mut most, mut last) = (Duration::MAX, Duration::ZERO, Duration::ZERO);
    for number in 0..2_000 {
        // Far enough apart that none waits for the one before.
        let sent = 100 * MS * number;
        let Fate::Arrives(at) = jittery.packet(sent, PACKET, Protocol::Udp) else { panic!("dropped") };
        (least, most) = (least.min(at - sent), most.max(at - sent));
    }
    assert!(least >= 12 * MS && least < 13 * MS && most <= 28 * MS && most > 27 * MS, "{least:?} to {most:?}");
    for at in arrivals(&fates(&mut wire(jittery.shape), 2_000)) {
        assert!(at >= last);
        last = at;
    }
}

#[test]
fn a_rate_spaces_packets_and_its_queue_is_bounded_in_bytes() {
    // One packet each 2 ms is what it carries, one each 1 ms is what it gets.
    let mut wire = wire(Shape { rate: Some(500_000), queue: 10 * PACKET, ..Shape::default() });
    let fates = fates(&mut wire, 1_000);
    let times = arrivals(&fates);
    assert_eq!(times[0], 2 * MS, "its own time on the wire");
    assert!((490..=515).contains(&times.len()), "{} of 1,000", times.len());
    assert_eq!(dropped(&fates, Why::Queue), 1_000 - times.len());
    let waited = fates.iter().zip(0..).filter_map(|(fate, number)| match fate {
        Fate::Arrives(at) => Some(*at - MS * number),
        Fate::Twice(_) | Fate::Dropped(_) => None,
    });
    assert_eq!(waited.max(), Some(20 * MS), "ten packets at 2 ms");
}

#[test]
fn a_packet_larger_than_the_queue_passes_an_idle_wire() {
    let mut wire = wire(Shape { rate: Some(500_000), queue: 10, ..Shape::default() });
    assert_eq!(wire.packet(MS, PACKET, Protocol::Udp), Fate::Arrives(3 * MS));
    assert_eq!(wire.packet(MS, PACKET, Protocol::Udp), Fate::Dropped(Why::Queue));
}

#[test]
fn uniform_loss_loses_its_share_and_bursts_lose_theirs_in_runs() {
    let uniform = fates(&mut wire(Shape { loss: Loss::Uniform(0.1), ..Shape::default() }), 100_000);
    let bursts = fates(&mut wire(Shape { loss: Loss::bursts(0.1, 8.0), ..Shape::default() }), 100_000);
    let length = |fates: &[Fate]| {
        let runs = fates.chunk_by(|one, next| one.eq_kind(next)).filter(|run| run[0] == Fate::Dropped(Why::Loss));
        dropped(fates, Why::Loss) as f64 / runs.count() as f64
    };
    // Four standard deviations of 100,000 throws; runs of eight make the second one's four times as wide.
    assert!((9_620..=10_380).contains(&dropped(&uniform, Why::Loss)), "{}", dropped(&uniform, Why::Loss));
    assert!((8_500..=11_500).contains(&dropped(&bursts, Why::Loss)), "{}", dropped(&bursts, Why::Loss));
    assert!((1.05..1.2).contains(&length(&uniform)), "{}", length(&uniform));
    assert!((7.1..8.9).contains(&length(&bursts)), "{}", length(&bursts));
}

#[test]
fn reordered_packets_are_passed_and_duplicates_arrive_twice() {
    let reordered = fates(&mut wire(Shape { reorder: 0.05, ..Shape::default() }), 2_000);
    let late = reordered.iter().zip(0..).filter(|(fate, number)| **fate == Fate::Arrives(MS * *number + HELD_BACK));
    assert!((60..=140).contains(&late.count()));
    assert!(arrivals(&reordered).windows(2).any(|pair| pair[1] < pair[0]));
    let doubled = fates(&mut wire(Shape { duplicate: 0.05, ..Shape::default() }), 2_000);
    assert!((60..=140).contains(&doubled.iter().filter(|fate| matches!(fate, Fate::Twice(_))).count()));
}

#[test]
fn what_is_blocked_or_down_is_dropped_for_that_reason() {
    let mut wire = Wire::new(1);
    wire.blocked = Blocked::UDP;
    assert_eq!(wire.packet(MS, 1, Protocol::Udp), Fate::Dropped(Why::Blocked));
    assert_eq!(wire.packet(MS, 1, Protocol::Tcp), Fate::Arrives(MS));
    wire.blocked = Blocked::BOTH;
    assert_eq!(wire.packet(MS, 1, Protocol::Tcp), Fate::Dropped(Why::Blocked));
    assert_eq!(wire.packet(MS, 1, Protocol::Other), Fate::Arrives(MS));
    wire.down = true;
    assert_eq!(wire.packet(MS, 1, Protocol::Other), Fate::Dropped(Why::Down));
}

#[test]
fn seeds_decide_and_other_impairments_do_not_disturb_the_losses() {
    let lossy = Shape { loss: Loss::Uniform(0.2), ..Shape::default() };
    let busy = Shape { delay: 9 * MS, jitter: 3 * MS, reorder: 0.1, duplicate: 0.1, ..lossy };
    let lost = |seed: u64, shape: Shape| {
        let mut wire = Wire { shape, ..Wire::new(seed) };
        fates(&mut wire, 500).iter().map(|fate| *fate == Fate::Dropped(Why::Loss)).collect::<Vec<_>>()
    };
    let whole = |seed: u64| fates(&mut Wire { shape: busy, ..Wire::new(seed) }, 500);
    assert_eq!(whole(3), whole(3));
    assert_ne!(lost(3, lossy), lost(4, lossy));
    assert_eq!(lost(3, lossy), lost(3, busy));
}

#[test]
fn a_stream_is_slowed_and_stalled_but_loses_nothing() {
    let mut wire = wire(Shape { rate: Some(1_000_000), queue: 4 * PACKET, delay: 10 * MS, ..Shape::default() });
    assert_eq!(wire.piece(Duration::ZERO, 8 * PACKET), 18 * MS);
    assert_eq!(wire.room_at(Duration::ZERO), 4 * MS, "half of it is still in the queue then");
    wire.shape.loss = Loss::Uniform(1.0);
    assert_eq!(wire.piece(Duration::ZERO, PACKET), 19 * MS + RETRANSMIT + 20 * MS);
}

impl Fate {
    /// Whether both arrive or both do not.
    fn eq_kind(&self, other: &Self) -> bool {
        matches!(self, Self::Dropped(_)) == matches!(other, Self::Dropped(_))
    }
}
