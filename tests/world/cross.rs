//! Two clients act at the same time, and mail between shards is held back meanwhile.
//!
//! The broker may handle the two actions in either order, and each shard in its own. So the model
//! plays both orders, and what only one of them owes may come or not.

use tokio::task::yield_now;

use crate::{
    model::{Model, Session, Verdict},
    post::between,
    steps::{Step, What},
    vocabulary::{FILTERS, TOPICS},
    world::World,
};

/// The maximum number of shards, for the numbers of routes.
const SHARDS_MAX: u16 = 4;

/// Changes the model.
type Effect = Box<dyn Fn(&mut Model)>;

/// The effects of a step on the model, with their times.
#[derive(Default)]
pub(crate) struct Recorded(Vec<(u64, Effect)>);

impl Recorded {
    fn play(&self, model: &mut Model) {
        for (now, effect) in &self.0 {
            model.now = *now;
            effect(model);
        }
    }
}

impl World {
    /// Lets a step have an effect on the model, and records it if another step happens meanwhile.
    pub(crate) fn affect<T>(&mut self, effect: impl Fn(&mut Model) -> T + 'static) -> T {
        let now = self.model.now;
        let outcome = effect(&mut self.model);
        if let Some(recorded) = &mut self.recorded {
            recorded.0.push((
                now,
                Box::new(move |model| {
                    effect(model);
                }),
            ));
        }
        outcome
    }

    /// Plays two steps, the second before the mail of the first has arrived on the routes that are
    /// `held`.
    pub(crate) async fn cross(&mut self, steps: (&Step, &Step), turns: u8, held: u16) -> Verdict {
        let (first, second) = steps;
        if self.disk.is_failing() || !self.may_cross(first, second) {
            self.play(first).await?;
            self.settle().await?;
            return self.play(second).await;
        }
        self.count("two steps at the same time");
        let before = self.model.clone();
        self.hold_back(held);
        let one = self.record(first).await?;
        for _ in 0..turns {
            yield_now().await;
        }
        let other = self.record(second).await?;
        for _ in 0..turns {
            yield_now().await;
        }
        self.post.release();
        let now = self.model.now;
        let mut models = [before.clone(), before];
        one.play(&mut models[0]);
        other.play(&mut models[0]);
        other.play(&mut models[1]);
        one.play(&mut models[1]);
        let [model, reversed] = models;
        self.model = model.either(reversed)?;
        self.model.now = now;
        Ok(())
    }

    /// Holds back the mail on these routes between shards.
    pub(crate) fn hold_back(&self, held: u16) {
        self.post.hold(move |route, _| {
            between(route).is_some_and(|(from, to)| held >> (from * SHARDS_MAX + to) & 1 == 1)
        });
    }

    async fn record(&mut self, step: &Step) -> Verdict<Recorded> {
        self.recorded = Some(Recorded::default());
        self.play(step).await?;
        Ok(self.recorded.take().unwrap_or_default())
    }

    /// Returns whether the model can say what follows if these steps happen at the same time.
    fn may_cross(&self, first: &Step, second: &Step) -> bool {
        let retained = |step: &Step| match *step {
            Step::Publish { what, .. } | Step::HostPublish { what } if what.retain => Some(what),
            Step::Connect { ref how, .. } => how.says_at_once.filter(|what| what.retain),
            _ => None,
        };
        let may_retain_will = |step: &Step| {
            let session = step.acting().and_then(|client| self.model.sessions[client].as_ref());
            session.is_some_and(Session::may_retain_will)
        };
        let more = |step: &Step| {
            usize::from(retained(step).is_some()) + usize::from(may_retain_will(step))
        };
        let is_read_at_once = |step: &Step| match step {
            // Several retained messages are taken before anything else happens.
            Step::Subscribe { asked, .. } => asked.iter().any(|(filter, _)| {
                let more = more(first) + more(second);
                self.model.retained_matching(FILTERS[*filter]) + more > 1
            }),
            _ => false,
        };
        let topic = |step: &Step| retained(step).map(|what: What| TOPICS[what.topic]);
        let is_same_topic = topic(first).is_some() && topic(first) == topic(second);
        // Its answer waits until other shards have what the session leaves to them.
        let ends_absent = |step: &Step| match *step {
            Step::Kick { client, end_session: true, .. } => self.model.link(client).is_none(),
            _ => false,
        };
        // The order of two calls of the application at the same time is nobody's promise.
        let are_of_application =
            [first, second].iter().all(|step| matches!(step, Step::HostPublish { .. }));
        let (one, other) = (first.acting(), second.acting());
        (one.is_none() || one != other)
            && !are_of_application
            && !is_same_topic
            && !is_read_at_once(first)
            && !is_read_at_once(second)
            && !ends_absent(first)
            && !ends_absent(second)
    }
}

impl Step {
    /// Returns the client that acts, or that the step is about.
    const fn acting(&self) -> Option<usize> {
        match *self {
            Self::Connect { client, .. } | Self::Kick { client, .. } => Some(client),
            _ => self.client(),
        }
    }
}
