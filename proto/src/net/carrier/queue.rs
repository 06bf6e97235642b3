//! The socket that QUIC sees over a WebSocket: two bounded queues between quinn, which polls, and the pump, which waits.
//! Exact back-pressure both ways: a full queue is `WouldBlock` to quinn, and a stop of reading to the peer.

use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};
use tokio::sync::Notify;

use super::frames::{self, Batch, MESSAGE_MAX, PACKET_MAX, PACKETS_MAX};

/// Bytes that may wait in either direction.
const QUEUE_MAX: usize = 128 << 10;

/// Both queues of one WebSocket. quinn's endpoint holds it as its socket, the pump empties and fills it.
#[derive(Debug)]
pub(super) struct Queues {
    peer: SocketAddr,
    state: Mutex<State>,
    /// Something waits to be sent, or nothing more will.
    to_send: Notify,
    /// There is room for what was received.
    room: Notify,
    pollers: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    outgoing: VecDeque<Bytes>,
    outgoing_bytes: usize,
    incoming: VecDeque<Batch>,
    incoming_bytes: usize,
    reader: Option<Waker>,
    writers: Vec<(u64, Waker)>,
    /// Nothing more is sent once what waits has left.
    finishing: bool,
    /// The WebSocket is gone: what is sent vanishes, as on a cable that was pulled.
    broken: bool,
}

impl State {
    /// Whether the largest transmit has room.
    fn has_room(&self) -> bool {
        self.broken || self.outgoing_bytes + MESSAGE_MAX <= QUEUE_MAX
    }

    fn wake_writers(&mut self) {
        if self.has_room() {
            self.writers.drain(..).for_each(|(_, waker)| waker.wake());
        }
    }
}

impl Queues {
    pub(super) fn new(peer: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            peer,
            state: Mutex::default(),
            to_send: Notify::new(),
            room: Notify::new(),
            pollers: AtomicU64::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message to send, and whether more waits behind it; `None` when nothing more will come. Cancel-safe.
    pub(super) async fn next(&self) -> Option<(Bytes, bool)> {
        loop {
            let woken = self.to_send.notified();
            {
                let mut state = self.state();
                if let Some(message) = state.outgoing.pop_front() {
                    state.outgoing_bytes -= message.len();
                    state.wake_writers();
                    return Some((message, !state.outgoing.is_empty()));
                }
                if state.finishing {
                    return None;
                }
            }
            woken.await;
        }
    }

    /// Hands received packets to quinn; waits while it has not taken those before. One caller at a time.
    pub(super) async fn deliver(&self, batch: Batch) {
        loop {
            let woken = self.room.notified();
            {
                let mut state = self.state();
                if state.incoming_bytes + batch.bytes() <= QUEUE_MAX {
                    state.incoming_bytes += batch.bytes();
                    state.incoming.push_back(batch);
                    return state.reader.take().map_or((), Waker::wake);
                }
            }
            woken.await;
        }
    }

    /// Lets what waits leave, and ends the pump after it.
    pub(super) fn finish(&self) {
        self.state().finishing = true;
        self.to_send.notify_one();
    }

    /// Nothing moves any more.
    pub(super) fn break_off(&self) {
        let mut state = self.state();
        state.broken = true;
        state.outgoing.clear();
        state.outgoing_bytes = 0;
        state.wake_writers();
    }
}

impl AsyncUdpSocket for Queues {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let id = self.pollers.fetch_add(1, Ordering::Relaxed);
        Box::pin(Poller { queues: self, id })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len());
        // quinn keeps to `max_transmit_segments` and the packet size; what does not is dropped as a network would.
        let Ok(size) = u16::try_from(size) else { return Ok(()) };
        let fits = transmit.contents.len() + 3 <= MESSAGE_MAX && (1..=PACKET_MAX).contains(&size);
        {
            let mut state = self.state();
            if !state.has_room() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if state.broken || state.finishing || !fits {
                return Ok(());
            }
            let message = frames::encode(transmit.ecn.map_or(0, |ecn| ecn as u8), size, transmit.contents);
            state.outgoing_bytes += message.len();
            state.outgoing.push_back(message);
        }
        self.to_send.notify_one();
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        let mut taken = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some(packet) = next_packet(&mut state) else { break };
            let (packet, ecn) = packet;
            // A packet is never longer than a buffer: both ends know the same bound, and the decoder holds the peer to it.
            let length = packet.len().min(buf.len());
            buf[..length].copy_from_slice(&packet[..length]);
            *meta = RecvMeta {
                addr: self.peer,
                len: length,
                stride: length,
                ecn: EcnCodepoint::from_bits(ecn),
                ..RecvMeta::default()
            };
            taken += 1;
        }
        if taken == 0 {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        self.room.notify_one();
        Poll::Ready(Ok(taken))
    }

    /// Of the peer's family; it is bound to nothing.
    fn local_addr(&self) -> io::Result<SocketAddr> {
        let any = match self.peer {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        Ok((any, 0).into())
    }

    fn max_transmit_segments(&self) -> usize {
        PACKETS_MAX
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

fn next_packet(state: &mut State) -> Option<(Bytes, u8)> {
    loop {
        let batch = state.incoming.front_mut()?;
        let ecn = batch.ecn;
        match batch.next_packet() {
            Some(packet) => {
                state.incoming_bytes -= packet.len();
                return Some((packet, ecn));
            }
            None => _ = state.incoming.pop_front(),
        }
    }
}

/// Wakes one connection when there is room again.
#[derive(Debug)]
struct Poller {
    queues: Arc<Queues>,
    id: u64,
}

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.queues.state();
        if state.has_room() {
            return Poll::Ready(Ok(()));
        }
        match state.writers.iter_mut().find(|(id, _)| *id == self.id) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => state.writers.push((self.id, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        let id = self.id;
        self.queues.state().writers.retain(|(known, _)| *known != id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn transmit(contents: &[u8]) -> Transmit<'_> {
        let destination = (Ipv4Addr::LOCALHOST, 1).into();
        Transmit { destination, ecn: None, contents, segment_size: Some(PACKET_MAX.into()), src_ip: None }
    }

    #[tokio::test]
    async fn a_full_queue_is_would_block_and_room_wakes_who_waits() {
        let queues = Queues::new((Ipv4Addr::LOCALHOST, 1).into());
        let packets = vec![7; MESSAGE_MAX - 3];
        let mut sent = 0;
        let error = loop {
            match queues.try_send(&transmit(&packets)) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), sent), (io::ErrorKind::WouldBlock, 3), "128 KiB hold three of the largest");
        let (count, mut poller) = (Arc::new(Count::default()), queues.clone().create_io_poller());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(poller.as_mut().poll_writable(&mut cx).is_pending());
        assert!(poller.as_mut().poll_writable(&mut cx).is_pending());
        let (message, more) = queues.next().await.unwrap();
        assert_eq!((message.len(), more, count.0.load(Ordering::SeqCst)), (MESSAGE_MAX, true, 1));
        assert!(poller.as_mut().poll_writable(&mut cx).is_ready());
        queues.try_send(&transmit(&packets)).unwrap();
        assert!(poller.as_mut().poll_writable(&mut cx).is_pending());
        queues.break_off();
        assert!(poller.as_mut().poll_writable(&mut cx).is_ready(), "nobody waits for what is gone");
        queues.try_send(&transmit(&packets)).unwrap();
        queues.finish();
        assert_eq!(queues.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_quinn_does_not_take_stops_the_reading() {
        let queues = Queues::new((Ipv4Addr::LOCALHOST, 1).into());
        let batch = || frames::decode(frames::encode(2, 4_000, &[7; 40_000])).unwrap();
        for _ in 0..3 {
            queues.deliver(batch()).await;
        }
        let waiting = queues.deliver(batch());
        tokio::pin!(waiting);
        let wait = std::time::Duration::from_secs(60);
        assert!(tokio::time::timeout(wait, waiting.as_mut()).await.is_err());
        let (mut buffers, mut metas) = (vec![vec![0; 4096]; 32], vec![RecvMeta::default(); 32]);
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let mut cx = Context::from_waker(Waker::noop());
        let taken = queues.poll_recv(&mut cx, &mut slices, &mut metas);
        assert!(matches!(taken, Poll::Ready(Ok(30))), "{taken:?}");
        assert_eq!((metas[0].len, metas[0].stride, metas[0].ecn), (4_000, 4_000, EcnCodepoint::from_bits(2)));
        tokio::time::timeout(wait, waiting).await.unwrap();
    }
}
