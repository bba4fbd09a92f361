//! Measures the calls about live sessions with many clients, beside an echo between two of them.
//!
//!     cargo bench --bench control                          # 100,000 clients, five rounds
//!     cargo bench --bench control -- --clients 10000 list feed
//!     cargo bench --bench control -- --overrides 1000000 overrides
//!
//! Broker, HTTP server and clients are in one process: the clients are in-process streams, the
//! callers are threads that use HTTP over loopback. `CPU` is that of all threads but the caller's
//! and the echo's. `turns > 1 ms` are pieces of work of a shard that took longer, by the histogram
//! of `/metrics`, which leaves out the time of other threads; that time is printed beside it. Figures
//! are medians of the rounds.
//!
//! The threads of all of them share the processors, so an echo beside a call is late for two reasons:
//! its shard is busy with the call, and no processor is free. So the echo is also measured beside the
//! same calls to a second broker in the process, with as many clients (`elsewhere`). What it is later
//! than that, is the shard.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark talks, and ends where it cannot go on"
)]

mod caller;
mod echo;
mod feed;
mod fleet;
mod overrides;
mod sight;
mod webhooks;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Measures the calls about live sessions")]
pub(crate) struct Arguments {
    /// Connected clients
    #[arg(long, default_value_t = 100_000)]
    clients: usize,
    /// Shards of the broker
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// How often each call is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a measurement that has no end of its own
    #[arg(long, default_value_t = 5)]
    secs: u64,
    /// Sticky Keep Alives
    #[arg(long, default_value_t = 100_000)]
    overrides: usize,
    /// What to measure: list, client, status, selector, rules, feed, comings, webhooks, overrides; all if
    /// none is given
    cases: Vec<String>,
    /// Passed by cargo to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn has(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|name| name == case)
    }
}

#[actix_web::main]
async fn main() {
    let arguments = Arguments::parse();
    if !arguments.bench {
        return; // `cargo test --benches` only starts it
    }
    let (all, half) = (arguments.clients, arguments.clients / 2);
    if ["list", "client", "status", "selector", "rules"].iter().any(|case| arguments.has(case)) {
        let mut fleet = fleet::Fleet::start(arguments.shards).await;
        // The list is measured with half of the clients too, to see how its time grows.
        fleet.grow_to(half).await;
        let of_half = match arguments.has("list") {
            true => Some(sight::list(&fleet, None, arguments.rounds).await),
            false => None,
        };
        fleet.grow_to(all).await;
        let mut elsewhere = fleet::Fleet::start(arguments.shards).await;
        elsewhere.grow_to(all).await;
        if let Some(of_half) = of_half {
            let of_all = sight::list(&fleet, Some(&elsewhere), arguments.rounds).await;
            println!("time of a client, {all} to {half}: {:.2}", of_all / of_half);
        }
        if arguments.has("client") {
            sight::one_client(&mut fleet, arguments.rounds).await;
        }
        if arguments.has("status") {
            sight::status(&fleet, &elsewhere, arguments.rounds).await;
        }
        if arguments.has("selector") {
            sight::selector(&fleet, &elsewhere, arguments.rounds).await;
        }
        if arguments.has("rules") {
            fleet.subscribe().await;
            elsewhere.subscribe().await;
            sight::rule(&fleet, &elsewhere, arguments.rounds).await;
        }
        elsewhere.end().await;
        fleet.end().await;
    }
    if arguments.has("feed") {
        feed::changes(&arguments).await;
    }
    if arguments.has("comings") {
        feed::comings(&arguments).await;
    }
    if arguments.has("webhooks") {
        webhooks::throughput(&arguments).await;
    }
    if arguments.has("overrides") {
        overrides::measure(arguments.overrides, arguments.shards).await;
    }
}

/// Returns the median.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
