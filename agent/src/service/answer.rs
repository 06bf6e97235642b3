//! The first answer on a work stream: opened or refused.

use proto::{
    code::Code,
    limits::TEXT_MAX,
    net::stream::FrameStream,
    open::{OpenReply, Opened, Refused},
};

/// Says no and ends the stream; the answer is delivered, then nothing more is read.
pub async fn refuse(mut stream: FrameStream, code: Code, message: &str) {
    let refused = Refused { code, message: cut(message) };
    // If the answer cannot be written, the stream or the line is gone, and with it whoever waits for the answer.
    if stream.send.write_frame(&OpenReply::Refused(refused)).await.is_ok() {
        stream.send.finish();
    }
    stream.recv.source_mut().stop(code);
}

/// Says yes. `Err` if the stream is gone.
pub async fn open(stream: &mut FrameStream, peer: Option<String>) -> std::io::Result<()> {
    stream.send.write_frame(&OpenReply::Opened(Opened { peer })).await
}

/// A text that fits its message, cut at a character.
pub fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_MAX)].to_owned()
}
