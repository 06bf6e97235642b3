//! UDP through the link: one socket towards the master per client, replaced when the flow's address changes.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{Direction, State, shaper::Shaper};

const DATAGRAM_MAX: usize = 65_536;
/// Packets between the socket and their flow.
const INBOX: usize = 4096;

pub(super) async fn relay(socket: UdpSocket, state: Arc<State>) {
    let socket = Arc::new(socket);
    let mut flows: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        // An error is a port that was closed at the other end: the link does not mind.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let inbox = flows.entry(client).or_insert_with(|| {
            let (inbox, packets) = mpsc::channel(INBOX);
            tasks.spawn(flow(socket.clone(), client, packets, state.clone()));
            inbox
        });
        let _ = inbox.try_send(buffer[..length].to_vec());
    }
}

async fn flow(socket: Arc<UdpSocket>, client: SocketAddr, mut packets: mpsc::Receiver<Vec<u8>>, state: Arc<State>) {
    let mut address = state.address.subscribe();
    let upstream = watch::Sender::new(Arc::new(towards(&state).await));
    let (mut there, mut arriving_there) = Shaper::new(&state, Direction::Up);
    let (mut back, mut arriving_back) = Shaper::new(&state, Direction::Down);
    let mut buffer = vec![0; DATAGRAM_MAX];
    let deliver_there = async {
        while let Some(packet) = arriving_there.next().await {
            let upstream = upstream.borrow().clone();
            let _ = upstream.send(&packet).await;
        }
    };
    let deliver_back = async {
        while let Some(packet) = arriving_back.next().await {
            let _ = socket.send_to(&packet, client).await;
        }
    };
    let carry = async {
        loop {
            let from = upstream.borrow().clone();
            tokio::select! {
                Ok(()) = address.changed() => {
                    upstream.send_replace(Arc::new(towards(&state).await));
                }
                packet = packets.recv() => match packet {
                    Some(packet) => there.packet(&packet),
                    None => return,
                },
                received = from.recv(&mut buffer) => {
                    // An error is a port that is closed: a master that is away.
                    if let Ok(length) = received {
                        back.packet(&buffer[..length]);
                    }
                }
            }
        }
    };
    tokio::join!(deliver_there, deliver_back, carry);
}

async fn towards(state: &State) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    socket.connect(state.upstream).await.expect("loopback");
    socket
}
