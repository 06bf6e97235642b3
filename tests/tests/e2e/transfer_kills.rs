//! `landline cp` while whoever takes part is killed with -9 at random moments: it comes through, and its destination is the
//! old file or the new one at every moment (SECURITY R48).

use std::time::{Duration, Instant};

use landline_tests::{
    copying::{Witness, content, cp, parts_in},
    link::Shape,
    master::Master,
    soak,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// What is killed with -9 while a copy runs.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Master,
    Agent,
    Copy,
}

/// A copy that is killed around, at random moments, until it is through. Whoever looks at the destination meanwhile sees
/// the old file or the new one.
async fn copy_among_kills(up: bool, seed: u64) {
    let (size, kills, seconds) = soak::count((16_000_000, 4, 4), (200_000_000, 50, 150));
    let mut random = StdRng::seed_from_u64(seed);
    let (mut master, here, there) = (Master::start().await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut agent, link) = master.agent_behind("store", seed).await;
    let new = content(size, 4);
    let old = content(100_000, 5);
    let (source, destination) = if up { (&here, &there) } else { (&there, &here) };
    std::fs::write(source.path().join("f"), &new).unwrap();
    let target = destination.path().join("f");
    std::fs::write(&target, &old).unwrap();
    let witness = Witness::start(target.clone(), old.clone(), new.clone());
    let local = here.path().join("f").display().to_string();
    let remote = format!("store:{}", there.path().join("f").display());
    let arguments = if up { ["-q", &local, &remote] } else { ["-q", &remote, &local] };

    link.shape(Shape { rate: Some(size as u64 / seconds), ..Shape::default() });
    let mut running = cp(&master, &arguments).spawn().unwrap();
    let (mut done, mut anew, mut victims) = (0, 0, [0; 3]);
    while done < kills {
        tokio::time::sleep(Duration::from_millis(random.random_range(100..1_200))).await;
        if let Some(status) = running.try_wait().unwrap() {
            // It gives up at once only while nothing moved; and when it is through too early, it begins anew.
            if status.success() {
                let beside = target.with_extension("old");
                std::fs::write(&beside, &old).unwrap();
                std::fs::rename(beside, &target).unwrap();
                anew += 1;
            }
            running = cp(&master, &arguments).spawn().unwrap();
            continue;
        }
        let victim = [Victim::Master, Victim::Agent, Victim::Copy][random.random_range(0..3)];
        victims[victim as usize] += 1;
        match victim {
            Victim::Master => {
                master.kill();
                master.run().await;
            }
            Victim::Agent => {
                agent.kill();
                agent.start();
            }
            Victim::Copy => {
                running.kill().unwrap();
                running.wait().unwrap();
                running = cp(&master, &arguments).spawn().unwrap();
            }
        }
        master.api().online("store", Duration::from_secs(60)).await;
        done += 1;
    }
    link.shape(Shape::default());
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        match running.try_wait().unwrap() {
            Some(status) if status.success() => break,
            Some(_) => running = cp(&master, &arguments).spawn().unwrap(),
            None => {}
        }
        assert!(Instant::now() < deadline, "it is not through: {}", master.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(std::fs::read(&target).unwrap() == new);
    assert_eq!((parts_in(here.path()), parts_in(there.path())), (vec![], vec![]), "parts are left");
    println!(
        "{} of {size} bytes among {kills} kills (master, agent, copy: {victims:?}), begun anew {anew} times: equal, old or \
         new at each of {} looks, no part left",
        if up { "upload" } else { "download" },
        witness.finish()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_comes_through_whoever_is_killed() {
    copy_among_kills(true, 11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_comes_through_whoever_is_killed() {
    copy_among_kills(false, 12).await;
}
