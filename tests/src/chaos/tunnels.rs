//! Tunnels in chaos: opened, found again, closed, expired, and bytes carried through them.

use std::{collections::BTreeMap, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    model::{Slot, TARGETS},
    world::{World, name},
};
use crate::{api::port_of, copying::content, wait::eventually};

/// How long bytes may take to come through from a state in which the agent can be reached: it may still be on its way back.
const CARRIED_WITHIN: Duration = Duration::from_secs(60);
const ATTEMPT: Duration = Duration::from_secs(15);

/// The tunnels that are pending or active, by their places, as the API tells.
pub(super) async fn open_ones(world: &World) -> BTreeMap<Slot, Value> {
    let page = world.master.api().get("/tunnels?open=true&limit=200").await;
    let mut found = BTreeMap::new();
    for tunnel in page["items"].as_array().expect("items") {
        let place = place(world, tunnel).unwrap_or_else(|| panic!("nobody asked for {tunnel}"));
        let other = found.insert(place, tunnel.clone());
        assert!(other.is_none(), "two tunnels to one target: {other:?} {tunnel}");
    }
    found
}

fn place(world: &World, tunnel: &Value) -> Option<Slot> {
    let agent = tunnel["agent_id"].as_str()?.strip_prefix("chaos-")?.parse().ok()?;
    let port = tunnel["target"]["port"].as_u64()?;
    let target = (0..TARGETS).find(|target| u64::from(world.targets[*target]) == port)?;
    Some(Slot { agent, target })
}

fn asked(world: &World, slot: Slot) -> Value {
    let target = json!({ "host": "127.0.0.1", "port": world.targets[slot.target], "scheme": "tcp" });
    json!({ "agent_id": name(slot.agent), "target": target })
}

fn id(tunnel: &Value) -> String {
    tunnel["id"].as_str().unwrap_or_else(|| panic!("no id in {tunnel}")).to_owned()
}

/// Where there is one it is found, not made again.
pub(super) async fn open(world: &mut World, slot: Slot, standing: bool) {
    let before = open_ones(world).await.remove(&slot);
    let mut body = asked(world, slot);
    body["standing"] = before.as_ref().map_or(json!(standing), |tunnel| tunnel["standing"].clone());
    if body["standing"] == false {
        body["heartbeat"] = json!(false);
    }
    let tunnel = world.master.api().post("/tunnels", body).await;
    match before {
        Some(before) => assert_eq!(before["id"], tunnel["id"], "another one: {before} {tunnel}"),
        None => world.did("tunnel.open", id(&tunnel)),
    }
}

pub(super) async fn close(world: &mut World, slot: Slot) {
    let tunnel = open_ones(world).await.remove(&slot).unwrap_or_else(|| panic!("{slot:?} is open"));
    let (status, answer) = world.master.api().call(Method::DELETE, &format!("/tunnels/{}", id(&tunnel)), None).await;
    assert!(status.is_success(), "{status} {answer}");
    let port = port_of(&tunnel);
    assert!(!world.master.listening().contains(&port), "port {port} still listens after its tunnel was closed");
    world.did("tunnel.close", id(&tunnel));
}

/// One that ends by its own time.
pub(super) async fn expire(world: &mut World, slot: Slot) {
    let mut body = asked(world, slot);
    body["heartbeat"] = json!(false);
    body["ttl_s"] = json!(1);
    let tunnel = world.master.api().post("/tunnels", body).await;
    world.did("tunnel.open", id(&tunnel));
    let path = format!("/tunnels/{}", id(&tunnel));
    eventually(Duration::from_secs(10), "a tunnel expires", || async {
        let seen = world.master.api().get(&path).await;
        (!matches!(seen["status"].as_str(), Some("pending" | "active"))).then_some(())
    })
    .await;
}

/// Sends bytes and gets the very same back. A connection may break, as the way there may; none may ever bring other bytes.
pub(super) async fn carry(world: &mut World, slot: Slot, bytes: usize) {
    let tunnel = open_ones(world).await.remove(&slot).unwrap_or_else(|| panic!("{slot:?} is open"));
    let (port, sent) = (port_of(&tunnel), content(bytes, slot.target as u8));
    let begun = Instant::now();
    while !timeout(ATTEMPT, came_back(port, &sent)).await.is_ok_and(|whole| whole) {
        assert!(begun.elapsed() < CARRIED_WITHIN, "{slot:?} at port {port} carries nothing");
        // Between two attempts of somebody who tries again.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.done.carried += 1;
}

/// Whether all came back; panics where something else did.
async fn came_back(port: u16, sent: &[u8]) -> bool {
    let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let (mut reader, mut writer) = socket.split();
    let write = async {
        let written = writer.write_all(sent).await.is_ok();
        written && writer.shutdown().await.is_ok()
    };
    // `None` where the connection broke: then whatever came before is right, and no more is known.
    let read = async {
        let (mut got, mut piece) = (0, vec![0; 64 * 1024]);
        loop {
            match reader.read(&mut piece).await {
                Ok(0) => return Some(got),
                Ok(length) => {
                    let wanted = sent.get(got..got + length);
                    assert!(wanted == Some(&piece[..length]), "other bytes than sent, from {got} on");
                    got += length;
                }
                Err(_) => return None,
            }
        }
    };
    let (written, ended) = tokio::join!(write, read);
    // A clean end before all was said is a lie, whoever tells it.
    let whole = ended == Some(sent.len());
    assert!(whole || ended.is_none() || !written, "a clean end after {ended:?} bytes of {}", sent.len());
    whole
}
