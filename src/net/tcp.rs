//! Sets when the operating system closes the connection of a peer that vanished silently, for
//! example because its network was cut or its battery is empty.
//!
//! MQTT's Keep Alive detects this too, but a client may turn it off, and REST callers have none.

use std::{io, time::Duration};

use socket2::{Socket, TcpKeepalive};

/// Default for the seconds of silence before the operating system probes a peer.
pub const TCP_KEEP_ALIVE_SECS_DEFAULT: u16 = 60;

/// Number of probes, spread over a second period as long as the silence.
const QUESTIONS: u32 = 4;

/// Closes the connection of a peer without a sign of life for twice `secs`, idle or not; 0 changes
/// nothing. On Linux accepted sockets inherit this from the listener, which saves system calls.
///
/// # Errors
/// If the operating system refuses.
#[doc(hidden)] // The program uses it; the type of its argument is that of another crate.
pub fn give_up_the_dead(socket: &Socket, secs: u16) -> io::Result<()> {
    if secs == 0 {
        return Ok(());
    }
    let silence = Duration::from_secs(secs.into());
    let between = Duration::from_secs(u64::from(secs).div_ceil(QUESTIONS.into()));
    let keep_alive = TcpKeepalive::new().with_time(silence).with_interval(between);
    socket.set_tcp_keepalive(&keep_alive.with_retries(QUESTIONS))?;
    // Otherwise unacknowledged data is retransmitted for a quarter of an hour.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(2 * silence))?;
    Ok(())
}
