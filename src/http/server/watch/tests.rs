//! The deadlines of connections, on virtual time.

use std::{
    future::ready,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split},
    task::{unconstrained, yield_now},
    time::sleep,
};

use super::{
    super::{ServerOptions, places::Places},
    *,
};
use crate::net::Whose;

const CALLER: Whose = Whose::Of(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));

/// Runs a test on virtual time.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

fn places(connections_max: usize) -> Arc<Places> {
    Arc::new(Places::new(&ServerOptions { connections_max, ..ServerOptions::default() }))
}

/// Returns the caller's end of a connection that answers each line with `answer`.
fn connect(places: &Arc<Places>, answer: &'static [u8]) -> DuplexStream {
    serve(places, move |stream| speak(stream, answer))
}

/// Returns the caller's end of a connection of which the other end is `served`.
fn serve<F: Future<Output = ()> + 'static>(
    places: &Arc<Places>,
    served: impl FnOnce(WatchedStream<DuplexStream>) -> F + 'static,
) -> DuplexStream {
    let (caller, stream) = duplex(1_024);
    let watch = ConnectionWatch::new(places.admit_now(CALLER).unwrap());
    let stream = WatchedStream::new(stream, Rc::clone(&watch));
    tokio::task::spawn_local(async move {
        watch.keep(served(stream), ready(None)).await;
    });
    caller
}

/// Answers a line with parts that do not end, one a second.
async fn answer_on_and_on(stream: WatchedStream<DuplexStream>, is_live: bool, part: &[u8]) {
    let watch = Rc::clone(stream.watch());
    let (mut input, mut output) = split(stream);
    while input.read_u8().await.unwrap() != b'\n' {}
    watch.begin_answer(false);
    match is_live {
        true => watch.begin_live(),
        false => watch.end_answer(),
    }
    while output.write_all(part).await.is_ok() {
        sleep(Duration::from_secs(1)).await;
    }
}

async fn speak(stream: WatchedStream<DuplexStream>, answer: &[u8]) {
    let watch = Rc::clone(stream.watch());
    let (mut input, mut output) = split(stream);
    while let Ok(byte) = input.read_u8().await {
        if byte == b'\n' {
            watch.begin_answer(false);
            watch.end_answer();
            watch.end_body();
            output.write_all(answer).await.unwrap();
            output.flush().await.unwrap();
        }
    }
}

async fn ask(caller: &mut DuplexStream) {
    caller.write_all(b"request\n").await.unwrap();
    assert_eq!(caller.read_u8().await.unwrap(), b'!');
}

/// Returns the seconds until the other end closes.
async fn secs_to_end(caller: &mut DuplexStream) -> u64 {
    let began = Instant::now();
    let mut rest = Vec::new();
    drop(caller.read_to_end(&mut rest).await);
    began.elapsed().as_secs()
}

#[test]
fn the_first_head_has_its_time_from_the_beginning() {
    run(async {
        assert_eq!(secs_to_end(&mut connect(&places(8), b"!")).await, 5);
    });
}

#[test]
fn each_later_head_has_its_time_from_its_first_byte_and_no_byte_puts_it_off() {
    run(async {
        let mut caller = connect(&places(8), b"!");
        for _ in 0..3 {
            ask(&mut caller).await;
            sleep(Duration::from_secs(60)).await;
        }
        let began = Instant::now();
        while caller.write_all(b"x").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(began.elapsed().as_secs(), 6, "five seconds, and the write that notices");
    });
}

#[test]
fn an_idle_connection_stays_for_a_while_and_shorter_while_places_are_few() {
    run(async {
        let roomy = places(8);
        let mut caller = connect(&roomy, b"!");
        ask(&mut caller).await;
        assert_eq!(secs_to_end(&mut caller).await, 75);

        let mut callers: Vec<_> = (0..6).map(|_| connect(&roomy, b"!")).collect();
        ask(&mut callers[0]).await;
        assert_eq!(secs_to_end(&mut callers[0]).await, 5);
    });
}

#[test]
fn a_caller_that_does_not_take_its_answer_is_cut_off() {
    run(async {
        let places = places(8);
        let mut caller = connect(&places, &[b'!'; 4_096]);
        caller.write_all(b"request\n").await.unwrap();
        sleep(STALL_TIMEOUT - Duration::from_secs(1)).await;
        assert!(caller.write_all(b"x").await.is_ok());
        sleep(Duration::from_secs(2)).await;
        assert!(caller.write_all(b"x").await.is_err());
    });
}

/// A byte now and then does not keep the room of an answer.
#[test]
fn a_caller_that_takes_its_answer_too_slowly_is_cut_off() {
    run(async {
        let mut caller = connect(&places(8), &[b'!'; 64 * 1024]);
        caller.write_all(b"request\n").await.unwrap();
        let began = Instant::now();
        while caller.read_exact(&mut [0; 1_000]).await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
        assert!(began.elapsed() < STALL_TIMEOUT + Duration::from_secs(4));
        let mut caller = connect(&places(8), &[b'!'; 64 * 1024]);
        caller.write_all(b"request\n").await.unwrap();
        for _ in 0..32 {
            caller.read_exact(&mut [0; 2 * 1_024]).await.unwrap();
            sleep(Duration::from_millis(900)).await;
        }
    });
}

#[test]
fn an_answer_of_which_pieces_follow_is_no_idle_connection() {
    run(async {
        let mut caller = serve(&places(8), |stream| async move {
            let watch = Rc::clone(stream.watch());
            let (mut input, mut output) = split(stream);
            while input.read_u8().await.unwrap() != b'\n' {}
            watch.begin_answer(false);
            watch.end_answer();
            for _ in 0..2 {
                output.write_all(b"!").await.unwrap();
                output.flush().await.unwrap();
                assert_eq!(watch.phase.get(), Phase::Answering);
            }
            watch.end_body();
            output.flush().await.unwrap();
            assert_eq!(watch.phase.get(), Phase::Idle);
        });
        caller.write_all(b"request\n").await.unwrap();
        assert_eq!(secs_to_end(&mut caller).await, 0);
    });
}

/// It would hold its place until it is answered.
#[test]
fn a_call_that_waits_ends_with_its_caller_and_others_are_answered() {
    run(async {
        let places = places(1);
        let wait = |stream: WatchedStream<DuplexStream>, waits: bool| async move {
            let watch = Rc::clone(stream.watch());
            let (mut input, mut output) = split(stream);
            while input.read_u8().await.unwrap() != b'\n' {}
            watch.begin_answer(false);
            if waits {
                watch.begin_wait();
            }
            let left = async { input.read_u8().await.is_err().then(|| sleep(HEAD_TIMEOUT)) };
            left.await.unwrap().await;
            let _ = output.write_all(b"answered").await;
        };
        for (waits, answer) in [(true, &b""[..]), (false, b"answered")] {
            let caller = serve(&places, move |stream| wait(stream, waits));
            let (mut taken, mut leaving) = split(caller);
            leaving.write_all(b"request\n").await.unwrap();
            leaving.shutdown().await.unwrap();
            let mut all = Vec::new();
            let began = Instant::now();
            taken.read_to_end(&mut all).await.unwrap();
            assert_eq!((&*all, began.elapsed() < HEAD_TIMEOUT), (answer, waits));
        }
    });
}

#[test]
fn a_caller_that_sends_very_many_requests_at_once_lets_others_go_first_now_and_then() {
    run(async {
        let (mut caller, stream) = duplex(10 * BYTES_PER_TURN);
        caller.write_all(&[b'x'; 10 * BYTES_PER_TURN]).await.unwrap();
        drop(caller);
        let watch = ConnectionWatch::new(places(8).admit_now(CALLER).unwrap());
        let mut stream = WatchedStream::new(stream, Rc::clone(&watch));
        let reading = async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            assert_eq!(all.len(), 10 * BYTES_PER_TURN);
        };
        let mut connection = pin!(watch.keep(reading, ready(None)));
        let mut turns = 0;
        while futures_util::poll!(connection.as_mut()).is_pending() {
            turns += 1;
            yield_now().await;
        }
        assert_eq!(turns, 10);
    });
}

#[test]
fn a_caller_that_pipelines_requests_has_a_turn_for_each_until_it_pauses() {
    run(async {
        let request = [&[b'x'; BYTES_PER_TURN_OF_MANY - 1][..], b"\n"].concat();
        let watch = ConnectionWatch::new(places(8).admit_now(CALLER).unwrap());
        let (mut caller, stream) = duplex(100 * BYTES_PER_TURN);
        let stream = WatchedStream::new(stream, Rc::clone(&watch));
        let connection = watch.keep(speak(stream, b"!"), ready(None));
        let mut connection = pin!(unconstrained(connection));
        let mut answers = [0; 100];
        let first = BYTES_PER_TURN / BYTES_PER_TURN_OF_MANY;
        for _ in 0..2 {
            caller.write_all(&request.repeat(100)).await.unwrap();
            assert!(futures_util::poll!(connection.as_mut()).is_pending());
            assert_eq!(caller.read(&mut answers).await.unwrap(), first);
            for _ in first..100 {
                assert!(futures_util::poll!(connection.as_mut()).is_pending());
                assert_eq!(caller.read(&mut answers).await.unwrap(), 1);
            }
            assert!(futures_util::poll!(connection.as_mut()).is_pending(), "a pause");
        }
    });
}

#[test]
fn a_follower_that_takes_nothing_for_45_seconds_is_cut_off() {
    run(async {
        let served = |stream| answer_on_and_on(stream, true, &[b'!'; 512]);
        let mut caller = serve(&places(8), served);
        caller.write_all(b"request\n").await.unwrap();
        for _ in 0..3 {
            // It is behind, and takes something in time.
            sleep(LIVE_TIMEOUT - Duration::from_secs(1)).await;
            caller.read_exact(&mut [0; 1_024]).await.unwrap();
        }
        sleep(LIVE_TIMEOUT - Duration::from_secs(1)).await;
        assert!(caller.write_all(b"x").await.is_ok());
        sleep(Duration::from_secs(5)).await;
        assert!(caller.write_all(b"x").await.is_err());
    });
}

#[test]
fn a_follower_that_reads_stays_as_long_as_it_likes() {
    run(async {
        let mut caller = serve(&places(8), |stream| answer_on_and_on(stream, true, b"!"));
        caller.write_all(b"request\n").await.unwrap();
        for _ in 0..10_000 {
            assert_eq!(caller.read_u8().await.unwrap(), b'!');
        }
    });
}

#[test]
fn a_streamed_list_is_cut_off_after_90_seconds_however_fast_its_caller_reads() {
    run(async {
        let mut caller = serve(&places(8), |stream| answer_on_and_on(stream, false, b"!"));
        caller.write_all(b"request\n").await.unwrap();
        assert_eq!(secs_to_end(&mut caller).await, 90);
    });
}
