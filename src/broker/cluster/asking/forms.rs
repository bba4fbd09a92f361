//! Translates calls about clients, and their outcomes, between the types of the broker and the forms in which they travel
//! to other nodes.
//!
//! Total in both directions: a form that no broker can have made is refused. Knows neither NATS nor shards.

use std::sync::Arc;

use crate::{
    cluster::asking::form::{
        CallBody, FailureForm, FilterForm, KeepAliveForm, KickForm, OutcomeForm, RedirectForm,
        WillForm,
    },
    control::{
        ClientFilter, ClientPattern, ControlError, KeepAliveChanged, Kick, KickOptions, Kicked,
        Redirection, SetKeepAlive, WillOutcome, WillRequest,
    },
    mqtt::ReasonCode,
};

fn boxed(text: &Arc<str>) -> Box<str> {
    (**text).into()
}

pub(super) fn keep_alive_call(request: &SetKeepAlive) -> CallBody {
    CallBody::SetKeepAlive(KeepAliveForm {
        interval_secs: request.interval_secs,
        by: request.by.as_ref().map(boxed),
        is_dry_run: request.is_dry_run,
        is_sticky: request.is_sticky,
        ttl_secs: request.ttl_secs,
        is_within_share: request.is_within_share,
    })
}

pub(super) fn keep_alive_of(client_id: String, form: KeepAliveForm) -> SetKeepAlive {
    SetKeepAlive {
        by: form.by.map(Arc::from),
        is_dry_run: form.is_dry_run,
        is_sticky: form.is_sticky,
        ttl_secs: form.ttl_secs,
        is_within_share: form.is_within_share,
        ..SetKeepAlive::new(client_id, form.interval_secs)
    }
}

pub(super) fn kick_call(request: &Kick) -> CallBody {
    let options = &request.options;
    CallBody::Kick(KickForm {
        by: request.by.as_ref().map(boxed),
        ends_session: options.ends_session,
        discards_will: options.will == WillRequest::Discard,
        reason_code: options.reason_code.number(),
        reason_string: options.reason_string.as_ref().map(boxed),
    })
}

/// Returns a kick; `None` if its reason cannot be sent.
pub(super) fn kick_of(client_id: String, form: KickForm) -> Option<Kick> {
    let code = ReasonCode::from_number(form.reason_code)?;
    let mut options = KickOptions::new().reason_code(code).ok()?;
    if let Some(reason) = form.reason_string {
        options = options.reason_string(&reason).ok()?;
    }
    options.ends_session = form.ends_session;
    if form.discards_will {
        options = options.will(WillRequest::Discard);
    }
    Some(Kick { by: form.by.map(Arc::from), ..Kick::new(client_id, options) })
}

pub(super) fn redirect_call(to: &Redirection) -> CallBody {
    CallBody::Redirect(RedirectForm {
        server_reference: boxed(to.server_reference()),
        is_permanent: to.is_permanent(),
    })
}

pub(super) fn redirection_of(form: &RedirectForm) -> Option<Redirection> {
    Redirection::new(&form.server_reference, form.is_permanent).ok()
}

pub(super) fn filter_form(filter: &ClientFilter) -> FilterForm {
    let text = |text: &String| text.as_str().into();
    FilterForm {
        client_id: filter.client_id.as_ref().map(|pattern| pattern.text().into()),
        client_ids: filter.client_ids.as_ref().map(|ids| ids.iter().map(boxed).collect()),
        username: filter.username.as_ref().map(text),
        network: filter.network.map(|network| network.to_string().into()),
        protocol: filter.protocol,
        online: filter.online,
        listener: filter.listener.as_ref().map(text),
        keep_alive_secs_min: filter.keep_alive_secs_min,
        keep_alive_secs_max: filter.keep_alive_secs_max,
        idle_secs_min: filter.idle_secs_min,
        queued_min: filter.queued_min.map(|messages| messages as u64),
    }
}

/// Returns a filter; `None` if its pattern or network is invalid.
pub(super) fn filter_of(form: FilterForm) -> Option<ClientFilter> {
    let filter = ClientFilter {
        client_id: form.client_id.map(|text| ClientPattern::new(&text)).transpose().ok()?,
        client_ids: None,
        username: form.username.map(String::from),
        network: form.network.map(|text| text.parse()).transpose().ok()?,
        protocol: form.protocol,
        online: form.online,
        listener: form.listener.map(String::from),
        keep_alive_secs_min: form.keep_alive_secs_min,
        keep_alive_secs_max: form.keep_alive_secs_max,
        idle_secs_min: form.idle_secs_min,
        queued_min: form.queued_min.map(|messages| messages as usize),
    };
    Some(match form.client_ids {
        Some(client_ids) => filter.among(client_ids),
        None => filter,
    })
}

pub(super) fn failure_form(error: ControlError) -> FailureForm {
    match error {
        ControlError::NotOnline => FailureForm::NotOnline,
        ControlError::KeepAliveDisabled => FailureForm::KeepAliveDisabled,
        ControlError::InvalidInterval => FailureForm::InvalidInterval,
        ControlError::ClientIdTooLong { bytes_max } => {
            FailureForm::ClientIdTooLong(bytes_max as u64)
        }
        ControlError::TooManyOverrides => FailureForm::TooManyOverrides,
        ControlError::TooManyOverridesOfUser => FailureForm::TooManyOverridesOfUser,
        ControlError::Timeout => FailureForm::Timeout,
        // No call that travels fails in another way.
        ControlError::UsernameTooLong
        | ControlError::InvalidSetting(_)
        | ControlError::SessionNotLasting
        | ControlError::TopicOverLimits
        | ControlError::MessageTooLarge
        | ControlError::RetainedFull
        | ControlError::TooManyDeliveries
        | ControlError::NoSubscriber
        | ControlError::TraceNotFound
        | ControlError::TooManyTraces
        | ControlError::NodeUnreachable
        | ControlError::NodeDown
        | ControlError::ClusterUnavailable
        | ControlError::Unavailable => FailureForm::Unavailable,
    }
}

pub(super) const fn error_of(form: FailureForm) -> ControlError {
    match form {
        FailureForm::NotOnline => ControlError::NotOnline,
        FailureForm::KeepAliveDisabled => ControlError::KeepAliveDisabled,
        FailureForm::InvalidInterval => ControlError::InvalidInterval,
        FailureForm::ClientIdTooLong(bytes_max) => {
            ControlError::ClientIdTooLong { bytes_max: bytes_max as usize }
        }
        FailureForm::TooManyOverrides => ControlError::TooManyOverrides,
        FailureForm::TooManyOverridesOfUser => ControlError::TooManyOverridesOfUser,
        FailureForm::Unavailable => ControlError::Unavailable,
        FailureForm::Timeout => ControlError::Timeout,
    }
}

pub(super) fn keep_alive_outcome(result: Result<KeepAliveChanged, ControlError>) -> OutcomeForm {
    match result {
        Ok(changed) => OutcomeForm::KeepAlive {
            old_secs: changed.old_secs,
            new_secs: changed.new_secs,
            is_not_told: changed.is_not_told,
            is_below_own: changed.is_below_own,
        },
        Err(error) => OutcomeForm::Failed(failure_form(error)),
    }
}

pub(super) fn kick_outcome(result: Result<Kicked, ControlError>) -> OutcomeForm {
    match result {
        Ok(Kicked { was_online, session_ended, will, .. }) => {
            let will = match will {
                WillOutcome::Absent => WillForm::Absent,
                WillOutcome::Published => WillForm::Published,
                WillOutcome::Denied => WillForm::Denied,
                WillOutcome::Waits => WillForm::Waits,
                WillOutcome::Discarded => WillForm::Discarded,
            };
            OutcomeForm::Kicked { was_online, session_ended, will }
        }
        Err(error) => OutcomeForm::Failed(failure_form(error)),
    }
}

pub(super) const fn will_of(form: WillForm) -> WillOutcome {
    match form {
        WillForm::Absent => WillOutcome::Absent,
        WillForm::Published => WillOutcome::Published,
        WillForm::Denied => WillOutcome::Denied,
        WillForm::Waits => WillOutcome::Waits,
        WillForm::Discarded => WillOutcome::Discarded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_filters_are_the_same_after_their_way() {
        let mut wanted = SetKeepAlive::new("car", 120).by("ann").sticky().ttl_secs(7);
        wanted.is_within_share = true;
        let CallBody::SetKeepAlive(form) = keep_alive_call(&wanted) else { panic!() };
        assert_eq!(keep_alive_of("car".into(), form), wanted);
        let options = KickOptions::new().end_session().will(WillRequest::Discard);
        let options = options.reason_string("later").unwrap();
        let kick = Kick::new("car", options.reason_code(ReasonCode::ServerBusy).unwrap()).by("ann");
        let CallBody::Kick(form) = kick_call(&kick) else { panic!() };
        assert_eq!(kick_of("car".into(), form), Some(kick));
        let to = Redirection::new("b:1883", true).unwrap();
        let CallBody::Redirect(form) = redirect_call(&to) else { panic!() };
        assert_eq!(redirection_of(&form), Some(to));
        let filter = ClientFilter {
            client_id: Some(ClientPattern::new("car-*").unwrap()),
            username: Some("ann".into()),
            network: Some("10.0.0.0/8".parse().unwrap()),
            protocol: Some(5),
            online: Some(true),
            listener: Some("l".into()),
            keep_alive_secs_min: Some(1),
            keep_alive_secs_max: Some(2),
            idle_secs_min: Some(3),
            queued_min: Some(4),
            ..ClientFilter::default()
        };
        let filter = filter.among(["car-1", "car-2"]);
        assert_eq!(filter_of(filter_form(&filter)), Some(filter));
    }

    #[test]
    fn a_form_that_no_broker_makes_is_refused() {
        let CallBody::Kick(mut form) = kick_call(&Kick::new("car", KickOptions::new())) else {
            panic!()
        };
        form.reason_code = 0x80;
        assert!(kick_of("car".into(), form.clone()).is_some());
        form.reason_code = 0x10;
        assert_eq!(kick_of("car".into(), form.clone()), None);
        (form.reason_code, form.reason_string) = (0x80, Some("\0".into()));
        assert_eq!(kick_of("car".into(), form), None);
        let form = FilterForm { client_id: Some("*a".repeat(17).into()), ..FilterForm::default() };
        assert_eq!(filter_of(form), None);
        let form = FilterForm { network: Some("10.0.0.1/8".into()), ..FilterForm::default() };
        assert_eq!(filter_of(form), None);
    }
}
