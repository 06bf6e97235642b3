//! TCP through the link: each connection is taken here and made anew towards the master.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    task::JoinSet,
};

use super::{Direction, State, shaper::Shaper};

const PIECE: usize = 16 * 1024;

pub(super) async fn relay(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(connection(client, state.clone()));
    }
}

async fn connection(mut client: TcpStream, state: Arc<State>) {
    let mut address = state.address.subscribe();
    let Ok(mut server) = TcpStream::connect(state.upstream).await else { return };
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
        // A connection whose address changed under it ends with a reset.
        let _ = socket.set_zero_linger();
    }
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::select! {
        Ok(()) = address.changed() => {}
        _ = async { tokio::join!(pump(from_client, to_server, &state, Direction::Up), pump(from_server, to_client, &state, Direction::Down)) } => {}
    }
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, state: &Arc<State>, direction: Direction) {
    let (mut shaper, mut arrivals) = Shaper::new(state, direction);
    let mut flows = state.flows.subscribe();
    let read = async move {
        loop {
            let mut piece = vec![0; PIECE];
            match from.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(length) => piece.truncate(length),
            }
            if flows.wait_for(|flows| *flows).await.is_err() || !shaper.piece(piece).await {
                return;
            }
        }
    };
    let write = async move {
        while let Some(piece) = arrivals.next().await {
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
