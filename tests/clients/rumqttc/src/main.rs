//! Tests with rumqttc. `run.py` calls it, sets its environment and reads its output.
//!
//! Knows what each cell of the table does; `client` knows how rumqttc does it in either version.

mod client;

use std::{
    env,
    future::Future,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use client::{Client, Given, Message, Options};

type Outcome = Result<(), String>;

const PATIENCE: Duration = Duration::from_secs(20);

fn name() -> String {
    env::var("NAME").expect("run.py sets NAME")
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, expected: T) -> Outcome {
    if seen == expected { Ok(()) } else { Err(format!("{what}: {seen:?} instead of {expected:?}")) }
}

async fn connect() -> Outcome {
    let client = Client::connect("connect", Options::default()).await?;
    expect("session present", client.session_present, false)?;
    client.end().await;
    let user = Some(format!("nobody-{}", name()));
    let stranger = Client::connect("connect", Options { user, ..Options::default() }).await;
    expect("a wrong password is let in", stranger.is_ok(), false)
}

async fn round_trip(qos: u8) -> Outcome {
    let topic = format!("{}/qos/{qos}", name());
    let mut client = Client::connect(&format!("qos-{qos}"), Options::default()).await?;
    client.subscribe(&topic, qos, None).await?;
    for number in 0..100 {
        client.send(&topic, &number.to_string(), qos, false, None).await?;
    }
    for number in 0..100 {
        let seen = client.receive().await?;
        expect(
            "message",
            (seen.topic, seen.payload, seen.qos),
            (topic.clone(), number.to_string(), qos),
        )?;
    }
    client.end().await;
    Ok(())
}

async fn retained() -> Outcome {
    let topic = format!("{}/retained", name());
    let mut publisher = Client::connect("publisher", Options::default()).await?;
    for (payload, expected) in [("kept", ("kept", true)), ("", ("marker", false))] {
        publisher.publish(&topic, payload, true, None).await?;
        let mut subscriber = Client::connect("subscriber", Options::default()).await?;
        subscriber.subscribe(&topic, 1, None).await?;
        publisher.publish(&topic, "marker", false, None).await?;
        let seen = subscriber.receive().await?;
        expect("message", (seen.payload.as_str(), seen.retain), expected)?;
        subscriber.end().await;
    }
    publisher.end().await;
    Ok(())
}

async fn will() -> Outcome {
    let mut watcher = Client::connect("watcher", Options::default()).await?;
    watcher.subscribe(&format!("{}/will", name()), 1, None).await?;
    let this = env::current_exe().map_err(|error| error.to_string())?;
    let killed = Command::new(this).arg("victim").stdout(Stdio::piped()).spawn();
    let mut killed = killed.map_err(|error| error.to_string())?;
    let mut said = String::new();
    if let Some(output) = killed.stdout.take() {
        let _ = BufReader::new(output).read_line(&mut said);
    }
    let _ = killed.kill();
    let _ = killed.wait();
    expect("the victim", said.as_str(), "connected\n")?;
    let seen = watcher.receive().await?;
    expect("Will", (seen.payload.as_str(), seen.qos), ("gone", 1))?;
    watcher.end().await;
    Ok(())
}

/// Another process, which will be killed.
async fn victim() -> Outcome {
    let options =
        Options { will: Some((format!("{}/will", name()), "gone")), ..Options::default() };
    let _client = Client::connect("victim", options).await?;
    println!("connected");
    std::future::pending().await
}

async fn shared() -> Outcome {
    let topic = format!("{}/shared", name());
    let end = format!("{topic}/end");
    let mut members = Vec::new();
    for member in ["a", "b"] {
        let mut client = Client::connect(member, Options::default()).await?;
        client.subscribe(&format!("$share/group/{topic}"), 1, None).await?;
        client.subscribe(&end, 1, None).await?;
        members.push(client);
    }
    let mut publisher = Client::connect("publisher", Options::default()).await?;
    for number in 0..20 {
        publisher.publish(&topic, &number.to_string(), false, None).await?;
    }
    publisher.publish(&end, "", false, None).await?;
    let mut all = Vec::new();
    for mut member in members {
        let before = all.len();
        loop {
            let seen = member.receive().await?;
            if seen.topic == end {
                break;
            }
            all.push(seen.payload.parse::<u32>().map_err(|error| error.to_string())?);
        }
        expect("one member got everything", (1..20).contains(&(all.len() - before)), true)?;
        member.end().await;
    }
    all.sort_unstable();
    expect("messages", all, (0..20).collect())?;
    publisher.end().await;
    Ok(())
}

async fn properties() -> Outcome {
    let topic = format!("{}/properties", name());
    let nobodys = format!("{topic}/nobody");
    let mut client = Client::connect("properties", Options::default()).await?;
    client.subscribe(&topic, 1, Some(7)).await?;
    let given = Given {
        payload_format_indicator: Some(1),
        content_type: Some("text/plain".to_owned()),
        response_topic: Some(format!("{topic}/answer")),
        correlation_data: Some(b"17".as_slice().into()),
        message_expiry_interval: Some(60),
        user_properties: vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())],
        ..Given::default()
    };
    let with_alias = Given { topic_alias: Some(1), ..given.clone() };
    client.publish(&topic, "one", false, Some(with_alias)).await?;
    let alias_alone = Given { topic_alias: Some(1), ..Given::default() };
    client.publish("", "two", false, Some(alias_alone)).await?;
    let Message { given: mut seen, .. } = client.receive().await?;
    let expiry_secs = seen.message_expiry_interval.unwrap_or(0);
    expect("Message Expiry Interval", (1..=60).contains(&expiry_secs), true)?;
    seen.message_expiry_interval = given.message_expiry_interval;
    expect("properties", &seen, &Given { subscription_identifiers: vec![7], ..given })?;
    let two = client.receive().await?;
    expect("by alias", (two.topic, two.payload.as_str()), (topic, "two"))?;
    let reason = client.publish(&nobodys, "", false, None).await?;
    expect("PUBACK", reason.as_str(), "NoMatchingSubscribers")?;
    let reason = client.unsubscribe(&nobodys).await?;
    expect("UNSUBACK", reason.as_str(), "NoSubscriptionExisted")?;
    client.end().await;
    Ok(())
}

async fn session() -> Outcome {
    let topic = format!("{}/session", name());
    let keep = || Options { keep: true, ..Options::default() };
    let mut before = Client::connect("session", keep()).await?;
    expect("session present", before.session_present, false)?;
    before.subscribe(&topic, 1, None).await?;
    before.end().await;
    let mut publisher = Client::connect("publisher", Options::default()).await?;
    for number in 0..3 {
        publisher.publish(&topic, &number.to_string(), false, None).await?;
    }
    publisher.end().await;
    let mut after = Client::connect("session", keep()).await?;
    expect("session present", after.session_present, true)?;
    for number in 0..3 {
        expect("queued", after.receive().await?.payload, number.to_string())?;
    }
    after.end().await;
    let again = Client::connect("session", Options::default()).await?;
    expect("session present after Clean Start", again.session_present, false)?;
    again.end().await;
    Ok(())
}

async fn cell(name: &str, asked: impl Future<Output = Outcome>) {
    let outcome = tokio::time::timeout(PATIENCE, asked).await;
    match outcome.unwrap_or_else(|_| Err("time is over".to_owned())) {
        Ok(()) => println!("{name}\tok"),
        Err(error) => println!("{name}\tFAIL\t{}", error.replace('\n', " ")),
    }
}

#[tokio::main]
async fn main() {
    if env::args().nth(1).as_deref() == Some("victim") {
        return cell("victim", victim()).await;
    }
    cell("connect", connect()).await;
    for qos in 0..=2 {
        cell(&format!("QoS {qos}"), round_trip(qos)).await;
    }
    cell("retained", retained()).await;
    cell("will", will()).await;
    cell("shared", shared()).await;
    if client::is_5() {
        cell("properties", properties()).await;
    }
    cell("session", session()).await;
}
