//! When the operating system gives up a peer that has vanished without a word: its network was cut,
//! its battery is empty.
//!
//! MQTT's Keep Alive notices that, but a client may turn it off, and a caller of REST has none.

use std::{io, time::Duration};

use socket2::{Socket, TcpKeepalive};

/// Seconds of silence after which a peer is asked whether it is there, if nothing else is said.
pub const TCP_KEEP_ALIVE_SECS_DEFAULT: u16 = 60;

/// Questions in the time that follows the silence and is as long.
const QUESTIONS: u32 = 4;

/// Gives up a peer that was not heard for twice `secs`, be it idle or sent to; 0 changes nothing. On
/// Linux what is accepted takes this over from the listener, which saves system calls.
///
/// # Errors
/// If the operating system refuses.
pub fn give_up_the_dead(socket: &Socket, secs: u16) -> io::Result<()> {
    if secs == 0 {
        return Ok(());
    }
    let silence = Duration::from_secs(secs.into());
    let between = Duration::from_secs(u64::from(secs).div_ceil(QUESTIONS.into()));
    let keep_alive = TcpKeepalive::new().with_time(silence).with_interval(between);
    socket.set_tcp_keepalive(&keep_alive.with_retries(QUESTIONS))?;
    // Without this, what is on its way to the peer is sent again for a quarter of an hour.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(2 * silence))?;
    Ok(())
}
