//! Output for a socket: encoded packets, and large payloads in their shared buffers.
//!
//! A payload that many subscribers share is not copied for each of them: the output refers to it
//! between the bytes before and after it, and releases it as soon as it is written. This module
//! knows neither packets nor sockets.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes};

#[derive(Debug, Default)]
pub(super) struct Output {
    /// All bytes except the payloads in buffers of their own.
    bytes: Vec<u8>,
    /// How many of them are written.
    written: usize,
    /// Boxed because it is rare: most connections need no space for it.
    apart: Option<Box<Apart>>,
}

#[derive(Debug, Default)]
struct Apart {
    /// Payloads, each with its position: the number of `bytes` before it.
    payloads: VecDeque<(usize, Bytes)>,
    /// Number of payload bytes that are not written.
    len: usize,
}

impl Output {
    /// Returns the buffer that packets are appended to.
    pub(super) const fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends a payload.
    #[inline(never)]
    pub(super) fn push_apart(&mut self, payload: Bytes) {
        let apart = self.apart.get_or_insert_default();
        apart.len += payload.len();
        apart.payloads.push_back((self.bytes.len(), payload));
    }

    /// Returns whether nothing was appended since [`Self::take_written`].
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns the number of bytes that are not written.
    pub(super) fn unwritten(&self) -> usize {
        self.bytes.len() - self.written + self.apart.as_ref().map_or(0, |apart| apart.len)
    }

    /// Returns the bytes that are not written, piece by piece.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let Self { bytes, written, apart } = self;
        Pieces { bytes, from: *written, apart: apart.as_deref(), payload: 0 }
    }

    /// Notes that this number of further bytes is written.
    #[inline]
    pub(super) fn advance(&mut self, n: usize) {
        if self.apart.is_some() {
            return self.advance_past_payloads(n);
        }
        self.written += n;
        debug_assert!(self.written <= self.bytes.len(), "no more is written than there is");
    }

    #[inline(never)]
    fn advance_past_payloads(&mut self, mut n: usize) {
        while let Some(apart) = &mut self.apart {
            let Some((at, payload)) = apart.payloads.front_mut() else {
                self.apart = None;
                break;
            };
            // First the bytes in front of the payload, which may be written in part.
            let before = n.min(*at - self.written);
            self.written += before;
            n -= before;
            if n == 0 {
                return;
            }
            let of_payload = n.min(payload.len());
            n -= of_payload;
            apart.len -= of_payload;
            // The socket took a part of the payload; the rest stays where it is.
            if of_payload < payload.len() {
                payload.advance(of_payload);
                return;
            }
            apart.payloads.pop_front();
        }
        self.advance(n);
    }

    /// Drops the written bytes if they are many and more than the unwritten bytes. So the output
    /// does not grow without limit if the client never reads everything. It moves fewer bytes than
    /// it drops.
    #[inline]
    pub(super) fn reclaim(&mut self, bytes_min: usize) {
        if self.written >= bytes_min && self.written >= self.bytes.len() - self.written {
            self.forget_written();
        }
    }

    fn forget_written(&mut self) {
        self.bytes.drain(..self.written);
        let payloads = self.apart.iter_mut().flat_map(|apart| &mut apart.payloads);
        payloads.for_each(|(at, _)| *at -= self.written);
        self.written = 0;
    }

    /// Takes the buffer away once all is written.
    pub(super) fn take_written(&mut self) -> Vec<u8> {
        debug_assert_eq!(self.unwritten(), 0, "all of it is written");
        self.written = 0;
        if self.apart.is_some() {
            self.apart = None;
        }
        std::mem::take(&mut self.bytes)
    }

    /// Takes the unwritten bytes as one piece.
    pub(super) fn take_unwritten(&mut self) -> Vec<u8> {
        let Self { mut bytes, written, apart } = std::mem::take(self);
        if apart.is_some() {
            let whole = Self { bytes, written, apart };
            return whole.pieces().collect::<Vec<_>>().concat();
        }
        bytes.drain(..written);
        bytes
    }
}

/// The bytes that are not written, as an iterator.
struct Pieces<'a> {
    bytes: &'a [u8],
    /// Position of the next of `bytes`.
    from: usize,
    apart: Option<&'a Apart>,
    /// Number of payloads that were returned.
    payload: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        while let Some((at, payload)) = self.apart.and_then(|a| a.payloads.get(self.payload)) {
            // The bytes in front of a payload, then the payload itself.
            let before = &self.bytes[self.from..*at];
            if !before.is_empty() {
                self.from = *at;
                return Some(before);
            }
            self.payload += 1;
            if !payload.is_empty() {
                return Some(payload);
            }
        }
        let rest = &self.bytes[self.from..];
        self.from = self.bytes.len();
        (!rest.is_empty()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appends and writes at random; `naive` has the bytes that are appended and not written.
    fn random_steps(output: &mut Output, naive: &mut Vec<u8>, random: &mut fastrand::Rng) {
        let piece: Vec<u8> = (0..random.usize(1..100)).map(|_| random.u8(..)).collect();
        match random.u8(0..4) {
            0 => {
                output.bytes_mut().extend_from_slice(&piece);
                naive.extend_from_slice(&piece);
            }
            1 => {
                // A payload follows its header.
                output.bytes_mut().push(1);
                naive.push(1);
                output.push_apart(piece.clone().into());
                naive.extend_from_slice(&piece);
            }
            2 => {
                let n = random.usize(..=naive.len());
                output.advance(n);
                naive.drain(..n);
            }
            _ => output.reclaim(random.usize(..200)),
        }
    }

    #[test]
    fn pieces_are_what_was_appended_and_is_not_written() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut output, mut naive) = (Output::default(), Vec::new());
        for step in 0..20_000 {
            random_steps(&mut output, &mut naive, &mut random);
            assert_eq!(output.pieces().collect::<Vec<_>>().concat(), naive, "step {step}");
            assert_eq!(output.unwritten(), naive.len());
            if random.u8(..) == 0 {
                assert_eq!(output.take_unwritten(), naive);
                naive.clear();
            }
            if naive.is_empty() {
                output.take_written();
                assert!(output.is_empty());
            }
        }
    }
}
