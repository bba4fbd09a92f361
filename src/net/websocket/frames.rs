//! Decodes and encodes WebSocket frames (RFC 6455, section 5) for a server: bytes in, bytes out.
//!
//! Pure; it knows no socket and no MQTT. Payloads are unmasked and joined in the reader's buffer,
//! and frames are never collected: a frame of any length needs the same few bytes of state.
//! tungstenite parses and writes the headers.

use std::io::Cursor;

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

/// The longest header: two bytes, a length of eight, a mask of four.
const HEADER_BYTES_MAX: usize = 14;

/// The longest payload of a control frame. (RFC 6455, 5.5)
const CONTROL_BYTES_MAX: u64 = 125;

/// Removes the frame headers and masks from a client's bytes.
///
/// ```text
/// header ──> data payload ──────────> header …
///       └──> ping, pong payload ────> header …
///       └──> close payload ─────────> the end
///       └──> invalid frame ─────────> the end
/// ```
#[derive(Debug, Default)]
pub(super) struct Deframer {
    /// The beginning of an incomplete header.
    head: [u8; HEADER_BYTES_MAX],
    head_bytes: usize,
    /// The frame whose payload is being received.
    frame: Option<Frame>,
    /// A fragmented message is being received, and its last frame has not begun.
    is_in_message: bool,
    /// The received part of a control frame's payload.
    control: Vec<u8>,
}

#[derive(Debug)]
struct Frame {
    kind: FrameKind,
    /// Bytes of payload that are missing.
    left: u64,
    /// Rotated so that its first byte belongs to the next byte of payload.
    mask: [u8; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrameKind {
    Data,
    Control(Control),
}

/// How the frames of a client end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client closes the WebSocket; the close code to answer with.
    Closed(CloseCode),
    /// The client violates the protocol; the close code to answer with.
    Failed(CloseCode),
}

/// The content of some received bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Deframed {
    /// Number of payload bytes, which are now at the beginning of the buffer.
    pub(super) data_bytes: usize,
    /// The payload of the last ping, which must be answered. (RFC 6455, 5.5.3)
    pub(super) ping: Option<Vec<u8>>,
    /// The end of the frames; all bytes after it are ignored.
    pub(super) end: Option<End>,
}

impl Deframer {
    /// Moves the payloads in `bytes` to the beginning of `bytes`.
    pub(super) fn deframe(&mut self, bytes: &mut [u8]) -> Deframed {
        let mut found = Deframed::default();
        let mut read = 0;
        while read < bytes.len() && found.end.is_none() {
            let rest = &mut bytes[read..];
            let Some(frame) = &mut self.frame else {
                match self.take_header(rest) {
                    Ok(taken) => read += taken,
                    Err(code) => found.end = Some(End::Failed(code)),
                }
                // Also after a header: a frame without a payload is complete with it.
                self.finish_frame(&mut found);
                continue;
            };
            let length = rest.len().min(usize::try_from(frame.left).unwrap_or(usize::MAX));
            unmask(&mut rest[..length], &mut frame.mask);
            frame.left -= length as u64;
            if frame.kind == FrameKind::Data {
                // Payloads move down over headers that were read,
                // so they are contiguous without another buffer.
                bytes.copy_within(read..read + length, found.data_bytes);
                found.data_bytes += length;
            } else {
                self.control.extend_from_slice(&rest[..length]);
            }
            read += length;
            self.finish_frame(&mut found);
        }
        found
    }

    /// Takes as much of a header as has arrived; returns the number of bytes taken.
    fn take_header(&mut self, bytes: &[u8]) -> Result<usize, CloseCode> {
        let before = self.head_bytes;
        let taken = bytes.len().min(HEADER_BYTES_MAX - before);
        self.head[before..before + taken].copy_from_slice(&bytes[..taken]);
        let mut cursor = Cursor::new(&self.head[..before + taken]);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| CloseCode::Protocol)?;
        // The rest of the header comes with the next read; until then these bytes are kept.
        let Some((header, length)) = parsed else {
            self.head_bytes = before + taken;
            return Ok(taken);
        };
        let header_bytes = cursor.position() as usize;
        self.head_bytes = 0;
        self.begin_frame(&header, length)?;
        // Bytes of an earlier read are in the header too, but not in `bytes`.
        Ok(header_bytes - before)
    }

    fn begin_frame(&mut self, header: &FrameHeader, length: u64) -> Result<(), CloseCode> {
        // No extension is negotiated, and clients must mask. (RFC 6455, 5.1 and 5.2)
        let is_reserved = header.rsv1 || header.rsv2 || header.rsv3;
        let mask = header.mask.filter(|_| !is_reserved).ok_or(CloseCode::Protocol)?;
        let kind = match header.opcode {
            // Only binary frames carry MQTT. [MQTT-6.0.0-1]
            OpCode::Data(Data::Text) => return Err(CloseCode::Unsupported),
            // The frames of two messages must not be interleaved. (RFC 6455, 5.4)
            OpCode::Data(Data::Binary) if !self.is_in_message => FrameKind::Data,
            OpCode::Data(Data::Continue) if self.is_in_message => FrameKind::Data,
            OpCode::Data(_) => return Err(CloseCode::Protocol),
            // Control frames are short and not fragmented. (RFC 6455, 5.5)
            OpCode::Control(control) if header.is_final && length <= CONTROL_BYTES_MAX => {
                FrameKind::Control(control)
            }
            OpCode::Control(_) => return Err(CloseCode::Protocol),
        };
        if length > i64::MAX as u64 {
            return Err(CloseCode::Protocol); // (RFC 6455, 5.2)
        }
        if kind == FrameKind::Data {
            self.is_in_message = !header.is_final;
        }
        self.frame = Some(Frame { kind, left: length, mask });
        Ok(())
    }

    /// Ends the current frame if it is complete.
    fn finish_frame(&mut self, found: &mut Deframed) {
        let Some(Frame { kind, left: 0, .. }) = self.frame else {
            return;
        };
        self.frame = None;
        let payload = std::mem::take(&mut self.control);
        match kind {
            FrameKind::Control(Control::Ping) => found.ping = Some(payload),
            FrameKind::Control(Control::Close) => found.end = Some(closed(&payload)),
            FrameKind::Data | FrameKind::Control(Control::Pong | Control::Reserved(_)) => {}
        }
    }
}

/// Returns the answer to a close frame with this payload: its own close code. (RFC 6455, 5.5.1)
fn closed(payload: &[u8]) -> End {
    match payload {
        [] => End::Closed(CloseCode::Normal),
        [high, low, reason @ ..] => {
            let code = CloseCode::from(u16::from_be_bytes([*high, *low]));
            match code.is_allowed() && str::from_utf8(reason).is_ok() {
                true => End::Closed(code),
                false => End::Failed(CloseCode::Protocol),
            }
        }
        [_] => End::Failed(CloseCode::Protocol),
    }
}

/// Removes the mask. (RFC 6455, 5.3)
fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let [a, b, c, d] = *mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes((&*chunk).try_into().expect("a chunk has eight bytes"));
        chunk.copy_from_slice(&(word ^ wide).to_ne_bytes());
    }
    let rest = chunks.into_remainder();
    for (byte, mask) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= mask;
    }
    mask.rotate_left(rest.len() % 4);
}

/// The longest header that a server sends: two bytes and a length of eight bytes.
pub(super) const SENT_HEADER_BYTES_MAX: usize = 10;

/// Returns the header of one unfragmented binary frame, and the length of that header.
pub(super) fn binary_header(payload_bytes: usize) -> ([u8; SENT_HEADER_BYTES_MAX], usize) {
    let mut header = [0; SENT_HEADER_BYTES_MAX];
    let mut cursor = Cursor::new(&mut header[..]);
    write_header(OpCode::Data(Data::Binary), payload_bytes, &mut cursor);
    let length = cursor.position() as usize;
    (header, length)
}

/// Returns a pong frame with the payload of the ping.
pub(super) fn pong(payload: &[u8]) -> Vec<u8> {
    control(Control::Pong, payload)
}

/// Returns a close frame.
pub(super) fn close(code: CloseCode) -> Vec<u8> {
    control(Control::Close, &u16::from(code).to_be_bytes())
}

fn control(control: Control, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(2 + payload.len());
    write_header(OpCode::Control(control), payload.len(), &mut frame);
    frame.extend_from_slice(payload);
    frame
}

fn write_header(opcode: OpCode, payload_bytes: usize, out: &mut impl std::io::Write) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header.format(payload_bytes as u64, out).expect("there is room for a header");
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    fn masked(opcode: OpCode, is_final: bool, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader { opcode, is_final, mask: Some(mask), ..FrameHeader::default() };
        let mut bytes = Vec::new();
        header.format(payload.len() as u64, &mut bytes).unwrap();
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    #[derive(Clone, Debug)]
    struct Sent {
        payload: Vec<u8>,
        ping_before: Option<Vec<u8>>,
        mask: [u8; 4],
    }

    /// Messages of several frames each.
    fn messages() -> impl Strategy<Value = Vec<Vec<Sent>>> {
        let payload = prop_oneof![vec(any::<u8>(), 0..200), vec(any::<u8>(), 60_000..70_000)];
        let ping = proptest::option::of(vec(any::<u8>(), 0..=125));
        let frame = (payload, ping, any::<[u8; 4]>())
            .prop_map(|(payload, ping_before, mask)| Sent { payload, ping_before, mask });
        vec(vec(frame, 1..4), 0..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// All payloads and the last ping come out, wherever the bytes are split.
        #[test]
        fn payloads_come_out_however_the_bytes_are_cut(
            messages in messages(),
            cuts in vec(any::<Index>(), 0..40),
        ) {
            let (mut wire, mut expected, mut pings) = (Vec::new(), Vec::new(), Vec::new());
            for frames in &messages {
                for (number, Sent { payload, ping_before, mask }) in frames.iter().enumerate() {
                    if let Some(ping) = ping_before {
                        wire.extend(masked(OpCode::Control(Control::Ping), true, *mask, ping));
                        pings.push(ping.clone());
                    }
                    let kind = if number == 0 { Data::Binary } else { Data::Continue };
                    let is_last = number + 1 == frames.len();
                    wire.extend(masked(OpCode::Data(kind), is_last, *mask, payload));
                    expected.extend_from_slice(payload);
                }
            }
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
            cuts.push(wire.len());
            cuts.sort_unstable();
            let (mut deframer, mut got, mut last_ping) = (Deframer::default(), Vec::new(), None);
            let mut begin = 0;
            for end in cuts {
                let piece = &mut wire[begin..end];
                begin = end;
                let found = deframer.deframe(piece);
                prop_assert_eq!(found.end, None);
                got.extend_from_slice(&piece[..found.data_bytes]);
                last_ping = found.ping.or(last_ping);
            }
            prop_assert!(got == expected);
            prop_assert_eq!(last_ping.as_ref(), pings.last());
        }

        /// Any bytes are valid, incomplete or an end; data after an end is ignored.
        #[test]
        fn any_bytes_are_taken(mut bytes in vec(any::<u8>(), 0..300)) {
            let length = bytes.len();
            let mut deframer = Deframer::default();
            let found = deframer.deframe(&mut bytes);
            prop_assert!(found.data_bytes <= length);
        }
    }

    #[test]
    fn data_before_the_end_count() {
        let mut bytes = masked(OpCode::Data(Data::Binary), true, [1, 2, 3, 4], b"last words");
        bytes.extend(masked(OpCode::Control(Control::Close), true, [9; 4], &[0x03, 0xE9, b'x']));
        bytes.extend(masked(OpCode::Data(Data::Binary), true, [0; 4], b"ignored"));
        let found = Deframer::default().deframe(&mut bytes);
        assert_eq!(&bytes[..found.data_bytes], b"last words");
        assert_eq!(found.end, Some(End::Closed(CloseCode::Away)));
    }
}
