//! Chaos, short: three seeds that are always the same, and one of whoever asks for it (`make chaos`).

use std::time::Duration;

use landline_tests::chaos;

const SHORT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_comes_through_seed_1() {
    chaos::run(1, SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_comes_through_seed_2() {
    chaos::run(2, SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_comes_through_seed_3() {
    chaos::run(3, SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make chaos runs it"]
async fn a_fleet_comes_through_any_seed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("LANDLINE_CHAOS_SEED").expect("LANDLINE_CHAOS_SEED is a number");
    let seconds = number("LANDLINE_CHAOS_SECONDS").expect("LANDLINE_CHAOS_SECONDS is a number");
    chaos::run(seed, Duration::from_secs(seconds)).await;
}
