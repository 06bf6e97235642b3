//! The way between carriers, second by second, with no clock.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn udp_comes_first_unless_it_failed_here_or_is_not_wanted() {
    let now = Some(Duration::ZERO);
    let plan = |wanted, udp| start(wanted, Memory { udp, udp_broke: 0 });
    assert_eq!(plan(Wanted::Auto, Udp::Untried), Start { udp: now, websocket: Some(HEAD_START) });
    assert_eq!(plan(Wanted::Auto, Udp::Worked), Start { udp: now, websocket: Some(HEAD_START_OF_THE_PROVEN) });
    assert_eq!(plan(Wanted::Auto, Udp::Failed), Start { udp: now, websocket: now });
    for udp in [Udp::Untried, Udp::Worked, Udp::Failed] {
        assert_eq!(plan(Wanted::Udp, udp), Start { udp: now, websocket: None });
        assert_eq!(plan(Wanted::WebSocket, udp), Start { udp: None, websocket: now });
    }
}

/// The seconds at which UDP is tried when each try takes five seconds and comes to nothing.
fn tries(course: &mut Course, seconds: u32) -> Vec<u32> {
    let (mut tried, mut fails_at) = (Vec::new(), None);
    for second in 0..seconds {
        let now = SECOND * second;
        if fails_at == Some(second) {
            course.failed(now, 0.0);
        }
        if let Some(wanted) = course.look(now, Packets::default()) {
            assert_eq!(wanted, Try::Udp);
            tried.push(second);
            fails_at = Some(second + 5);
        }
    }
    tried
}

#[test]
fn from_a_websocket_udp_is_tried_at_once_and_then_more_and_more_rarely() {
    let mut course = Course::new(Wanted::Auto, Carrier::WebSocket, Memory::default(), Duration::ZERO);
    assert_eq!(tries(&mut course, 5_000), [0, 65, 190, 435, 920, 1825, 2730, 3635, 4540]);
    let broke = Memory { udp: Udp::Worked, udp_broke: 2 };
    let mut course = Course::new(Wanted::Auto, Carrier::WebSocket, broke, Duration::ZERO);
    assert_eq!(tries(&mut course, 2_000), [240, 485, 970, 1875], "what was left as bad is believed later");
    for wanted in [Wanted::Udp, Wanted::WebSocket] {
        let mut course = Course::new(wanted, Carrier::WebSocket, Memory::default(), Duration::ZERO);
        assert_eq!(tries(&mut course, 2_000), Vec::<u32>::new());
    }
}

#[test]
fn the_wait_is_shortened_by_a_tenth_at_most() {
    let mut course = Course::new(Wanted::Auto, Carrier::WebSocket, Memory::default(), Duration::ZERO);
    assert_eq!(course.look(SECOND, Packets::default()), Some(Try::Udp));
    assert_eq!(course.look(SECOND * 500, Packets::default()), None, "one try at a time");
    course.failed(SECOND * 500, 0.999);
    assert_eq!(course.look(SECOND * 553, Packets::default()), None);
    assert_eq!(course.look(SECOND * 555, Packets::default()), Some(Try::Udp));
}

/// Looks each second for a while, with so many packets a second and so many of them lost; gives the first wish.
fn lossy(
    course: &mut Course,
    from: u32,
    seconds: u32,
    sent: u64,
    lost: u64,
    so_far: &mut Packets,
) -> Option<(u32, Try)> {
    (from..from + seconds).find_map(|second| {
        so_far.sent += sent;
        so_far.lost += lost;
        Some((second, course.look(SECOND * second, *so_far)?))
    })
}

#[test]
fn udp_that_loses_more_than_a_fifth_is_left() {
    let mut packets = Packets::default();
    let mut course = Course::new(Wanted::Auto, Carrier::Udp, Memory::default(), Duration::ZERO);
    assert_eq!(lossy(&mut course, 0, 100, 100, 20, &mut packets), None, "a fifth is borne");
    let left = lossy(&mut course, 100, 30, 100, 50, &mut packets);
    let Some((second, Try::WebSocket { lost })) = left else { panic!("{left:?}") };
    assert!((100..110).contains(&second) && (21..30).contains(&lost), "{left:?}");
    // The WebSocket could not be had: again in a minute, not every second.
    course.failed(SECOND * 110, 0.0);
    let again = lossy(&mut course, 110, 100, 100, 50, &mut packets);
    assert!(matches!(again, Some((170, Try::WebSocket { .. }))), "{again:?}");
}

#[test]
fn few_packets_say_nothing_and_the_owner_decides() {
    let mut packets = Packets::default();
    let mut course = Course::new(Wanted::Auto, Carrier::Udp, Memory::default(), Duration::ZERO);
    assert_eq!(lossy(&mut course, 0, 300, 2, 1, &mut packets), None, "an idle line");
    for wanted in [Wanted::Udp, Wanted::WebSocket] {
        let mut course = Course::new(wanted, Carrier::Udp, Memory::default(), Duration::ZERO);
        assert_eq!(lossy(&mut course, 0, 300, 100, 90, &mut packets), None);
    }
}
