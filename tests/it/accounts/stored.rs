//! Accounts in the store: logins with device secrets and passwords, and what a change does to live and
//! absent sessions of its user at once.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
};

use futures_util::{FutureExt as _, future::join_all};
use hearthmq::{
    Broker,
    auth::{
        Accounts, AllowAll, Attributes, AuthenticationConfig, Chain, FileAuthenticator, FilePolicy,
        Groups, Rule, Source, ThrottleConfig, generate_secret, hash_password,
    },
    broker::Builder,
    control::{
        AccountProperties, ChangeUser, ExistingUsers, ImportUsers, Imported, ListUsers,
        NewPassword, NewUser, UserAccounts as _, UserChange, UserChanged, UsersError,
    },
    limits::OwnLimits,
    mqtt::{Connect, ReasonCode},
};
use tokio::task::yield_now;

use crate::support::{Client, disk::Disk, packets::*, pass, secs, world_with};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The sources of the program: a file with the user `ops`, then the store.
pub(super) fn sources(config: AuthenticationConfig) -> impl FnOnce(Builder) -> Builder {
    let hash = hash_password(b"of the file");
    let text = format!("[[users]]\nname = \"ops\"\npassword_hash = \"{hash}\"\n");
    let accounts = Accounts::parse(Path::new("users.toml"), &text).unwrap();
    let file = Arc::new(FileAuthenticator::new(accounts, config));
    let stored = file.stored_users();
    let chain = Chain::new()
        .with(Source::new("accounts", Arc::clone(&file)))
        .with(Source::new("users", Arc::clone(&stored)));
    move |builder| builder.authenticator(chain).stored_users(stored)
}

async fn world() -> Broker {
    world_with(sources(AuthenticationConfig::default())).await
}

pub(super) async fn change(
    broker: &Broker,
    name: &str,
    change: UserChange,
) -> Result<UserChanged, UsersError> {
    broker.change_user(ChangeUser::new(name, change, HERE)).await
}

pub(super) async fn create(broker: &Broker, user: NewUser) -> Result<UserChanged, UsersError> {
    let name = user.name.clone();
    change(broker, &name, UserChange::Create(Box::new(user))).await
}

pub(super) async fn add_secret(broker: &Broker, name: &str) -> (u64, String) {
    let made = change(broker, name, UserChange::AddSecret).await.unwrap().secret.unwrap();
    (made.id, made.text)
}

pub(super) async fn set(
    broker: &Broker,
    name: &str,
    fill: impl FnOnce(&mut AccountProperties),
) -> usize {
    let mut properties = AccountProperties::default();
    fill(&mut properties);
    let changed = change(broker, name, UserChange::Properties(Box::new(properties))).await;
    changed.unwrap().sessions.touched
}

pub(super) fn with_password(name: &str, password: NewPassword) -> NewUser {
    let mut user = NewUser::new(name);
    user.password = Some(password);
    user
}

pub(super) fn plain(password: &str) -> NewPassword {
    NewPassword::Plain(password.as_bytes().into())
}

fn login<'a>(name: &'a str, password: &'a str, connect: Connect<'a>) -> Connect<'a> {
    Connect { username: Some(name), password: Some(password.as_bytes()), ..connect }
}

async fn refused(broker: &Broker, connect: Connect<'_>) -> ReasonCode {
    let mut client = Client::new(broker, connect.version);
    client.send(hearthmq::mqtt::Packet::Connect(Box::new(connect))).await;
    client
        .receive(|packet| match packet {
            hearthmq::mqtt::Packet::ConnAck(answer) => answer.reason,
            other => panic!("{other:?}"),
        })
        .await
}

const BAD: ReasonCode = ReasonCode::BadUserNameOrPassword;

#[actix_rt::test]
async fn a_device_logs_in_with_its_secret_and_changes_to_the_next_one() {
    let broker = world().await;
    create(&broker, NewUser::new("car-17")).await.unwrap();
    let (first_id, first) = add_secret(&broker, "car-17").await;
    let mut old = Client::connected(&broker, login("car-17", &first, connect("old"))).await;
    let (second_id, second) = add_secret(&broker, "car-17").await;
    assert_ne!((first_id, &first), (second_id, &second));
    let third = change(&broker, "car-17", UserChange::AddSecret).await;
    assert_eq!(third.unwrap_err(), UsersError::TooManySecrets);
    let mut new = Client::connected(&broker, login("car-17", &second, connect("new"))).await;

    let user = broker.find_user("car-17").await.unwrap();
    assert!(user.secrets.iter().all(|secret| secret.last_used_at.is_some()));
    let removed = change(&broker, "car-17", UserChange::RemoveSecret(first_id)).await.unwrap();
    assert_eq!((removed.sessions.sessions, removed.sessions.touched), (2, 1));
    old.expect_disconnect(ReasonCode::NotAuthorized).await;
    new.ping().await;
    assert_eq!(refused(&broker, login("car-17", &first, connect("old"))).await, BAD);
    let again = change(&broker, "car-17", UserChange::RemoveSecret(first_id)).await;
    assert_eq!(again.unwrap_err(), UsersError::SecretNotFound);
    // What it has in common with another secret helps nobody.
    for wrong in [&second[..48], &format!("{second}A"), &generate_secret()] {
        assert_eq!(refused(&broker, login("car-17", wrong, connect("x"))).await, BAD);
    }
    assert_eq!(refused(&broker, login("ops", &second, connect("x"))).await, BAD);
}

#[actix_rt::test]
async fn a_new_password_ends_the_connections_of_the_former_one_alone() {
    let broker = world().await;
    create(&broker, with_password("ann", plain("first"))).await.unwrap();
    let (_, secret) = add_secret(&broker, "ann").await;
    let mut by_password = Client::connected(&broker, login("ann", "first", connect("p"))).await;
    let mut by_secret = Client::connected(&broker, login("ann", &secret, connect("s"))).await;
    let changed = change(&broker, "ann", UserChange::Password(plain("second"))).await.unwrap();
    assert_eq!(changed.sessions.touched, 1);
    by_password.expect_disconnect(ReasonCode::NotAuthorized).await;
    by_secret.ping().await;
    assert_eq!(refused(&broker, login("ann", "first", connect("p"))).await, BAD);
    Client::connected(&broker, login("ann", "second", connect("p"))).await;
    for wrong in [plain(""), plain(&"x".repeat(65_536))] {
        let outcome = change(&broker, "ann", UserChange::Password(wrong)).await;
        assert_eq!(outcome.unwrap_err(), UsersError::InvalidPassword);
    }
    let wrong = UserChange::Password(NewPassword::Hash("$1$a$b".into()));
    assert_eq!(change(&broker, "ann", wrong).await.unwrap_err(), UsersError::InvalidHash);
}

#[actix_rt::test]
async fn a_user_is_disabled_enabled_and_removed_while_connected_and_while_absent() {
    let broker = world().await;
    create(&broker, with_password("ann", plain("pw"))).await.unwrap();
    let lasting = |id| login("ann", "pw", connect_lasting(id, V5));
    let mut live = Client::connected(&broker, lasting("live")).await;
    let mut absent = Client::connected(&broker, lasting("absent")).await;
    absent.subscribe("t", QOS_1).await;
    absent.vanish().await;

    assert_eq!(set(&broker, "ann", |it| it.is_disabled = Some(true)).await, 2);
    live.expect_disconnect(ReasonCode::NotAuthorized).await;
    assert_eq!(refused(&broker, lasting("live")).await, ReasonCode::NotAuthorized);
    broker.publish("t", b"x", QOS_1, false).await.unwrap();
    assert_eq!(broker.client("absent").await.unwrap().unwrap().queued, 0, "it rests");
    assert_eq!(set(&broker, "ann", |it| it.is_disabled = Some(false)).await, 0);
    broker.publish("t", b"x", QOS_1, false).await.unwrap();
    assert_eq!(broker.client("absent").await.unwrap().unwrap().queued, 1);

    let mut live = Client::connected(&broker, lasting("live")).await;
    let removed = change(&broker, "ann", UserChange::Remove).await.unwrap();
    assert_eq!((removed.user, removed.sessions.touched), (None, 2));
    live.expect_disconnect(ReasonCode::NotAuthorized).await;
    for id in ["live", "absent"] {
        assert!(broker.client(id).await.unwrap().is_none(), "{id}");
    }
    assert_eq!(refused(&broker, lasting("live")).await, BAD);
    assert_eq!(change(&broker, "ann", UserChange::Remove).await.unwrap_err(), UsersError::NotFound);
}

#[actix_rt::test]
async fn groups_attributes_and_limits_are_in_force_at_once() {
    #[derive(serde::Deserialize)]
    struct File {
        rules: Vec<Rule>,
    }
    let rules = "[[rules]]\neffect = \"allow\"\nactions = [\"connect\"]\n\
                 [[rules]]\neffect = \"allow\"\ngroups = [\"cars\"]\nactions = [\"subscribe\"]\n\
                 topics = [\"${attributes.site}/#\"]\n";
    let policy = FilePolicy::new(toml::from_str::<File>(rules).unwrap().rules);
    let sources = sources(AuthenticationConfig::default());
    let broker = world_with(|builder| sources(builder.authorizer(policy))).await;
    let mut user = with_password("ann", plain("pw"));
    user.groups = Groups::new(["cars"]).unwrap();
    user.attributes = Attributes::new([("site", "s1")]).unwrap();
    create(&broker, user).await.unwrap();
    let packet = login("ann", "pw", connect_lasting("c", V5));
    let mut client = Client::connected(&broker, packet).await;
    client.subscribe("s1/t", QOS_1).await;
    let subscriptions = async || broker.client("c").await.unwrap().unwrap().subscriptions;

    let other = |it: &mut AccountProperties| {
        it.attributes = Some(Attributes::new([("site", "s2")]).unwrap());
    };
    assert_eq!(set(&broker, "ann", other).await, 1);
    assert_eq!(subscriptions().await, 0);
    client.subscribe("s2/t", QOS_1).await;
    assert_eq!(set(&broker, "ann", |it| it.groups = Some(Groups::default())).await, 1);
    assert_eq!(subscriptions().await, 0);
    assert_eq!(set(&broker, "ann", |it| it.groups = Some(Groups::default())).await, 0);

    let limits = OwnLimits { sessions_max: Some(1), ..OwnLimits::default() };
    set(&broker, "ann", |it| it.limits = Some(Some(limits))).await;
    let second = login("ann", "pw", connect_lasting("second", V5));
    assert_eq!(refused(&broker, second).await, ReasonCode::QuotaExceeded);
    set(&broker, "ann", |it| it.limits = Some(None)).await;
    Client::connected(&broker, login("ann", "pw", connect_lasting("second", V5))).await;
    let user = broker.find_user("ann").await.unwrap();
    assert_eq!((user.limits, user.groups), (None, Groups::default()));
}

#[actix_rt::test]
async fn the_file_goes_before_the_store() {
    let broker = world().await;
    let outcome = create(&broker, NewUser::new("ops")).await;
    assert_eq!(outcome.unwrap_err(), UsersError::InFile);
    Client::connected(&broker, login("ops", "of the file", connect("c"))).await;
    for name in ["", "a:b", "a\nb", &"x".repeat(4_097)] {
        let outcome = create(&broker, NewUser::new(name)).await;
        assert_eq!(outcome.unwrap_err(), UsersError::InvalidName, "{name:?}");
    }
    create(&broker, NewUser::new("ü".repeat(2_048))).await.unwrap();
    create(&broker, NewUser::new("ann")).await.unwrap();
    let again = create(&broker, NewUser::new("ann")).await;
    assert_eq!(again.unwrap_err(), UsersError::Exists);
}

#[actix_rt::test]
async fn a_change_of_another_revision_changes_nothing() {
    let broker = world().await;
    let user = create(&broker, NewUser::new("ann")).await.unwrap().user.unwrap();
    let mut wanted = ChangeUser::new("ann", UserChange::AddSecret, HERE);
    wanted.expected = Some(user.revision);
    broker.change_user(wanted.clone()).await.unwrap();
    assert_eq!(broker.change_user(wanted.clone()).await.unwrap_err(), UsersError::Changed);
    wanted.change = UserChange::Remove;
    assert_eq!(broker.change_user(wanted).await.unwrap_err(), UsersError::Changed);
    assert_eq!(broker.find_user("ann").await.unwrap().secrets.len(), 1);
    // Callers that do not say which revision come one after the other.
    let all = (0..6).map(|number| {
        let groups = Groups::new([number.to_string()]).unwrap();
        set(&broker, "ann", move |it| it.groups = Some(groups))
    });
    join_all(all).await;
}

/// A change begins with the account as the change before it leaves it, although that is not stored yet.
#[actix_rt::test]
async fn changes_of_one_account_at_one_time_follow_each_other() {
    let disk = Disk::default();
    let power = disk.power_slowly_with(sources(AuthenticationConfig::default())).await;
    create(&power.broker, NewUser::new("ann")).await.unwrap();
    power.hold_writes(true);
    let groups = |number: usize| Groups::new([format!("g{number}")]).unwrap();
    let each = |number| {
        let fill = move |it: &mut AccountProperties| it.groups = Some(groups(number));
        set(&power.broker, "ann", fill)
    };
    let mut changes = Box::pin(join_all((0..20).map(each)));
    let secrets = || change(&power.broker, "ann", UserChange::AddSecret);
    let mut secrets = Box::pin(join_all([secrets(), secrets()]));
    for _ in 0..100 {
        assert!((&mut changes).now_or_never().is_none());
        assert!((&mut secrets).now_or_never().is_none());
        yield_now().await;
    }
    power.hold_writes(false);
    changes.await;
    for added in secrets.await {
        added.unwrap();
    }
    let ann = power.broker.find_user("ann").await.unwrap();
    assert_eq!((ann.groups, ann.secrets.len()), (groups(19), 2));
}

/// One hash at a time and one place to wait: a third login at the same moment is refused, whichever
/// name it is for, if it costs a hash. A wrong secret costs none, whichever name it is for.
#[actix_rt::test]
async fn who_is_there_and_how_cannot_be_told_from_the_cost_of_a_refusal() {
    let config = || AuthenticationConfig {
        hashes_at_once_max: 1,
        hashes_waiting_max: 1,
        ..AuthenticationConfig::default()
    };
    for name in ["ops", "with-password", "with-secret", "with-weak-hash", "nobody"] {
        let broker = world_with(sources(config())).await;
        create(&broker, with_password("with-password", plain("pw"))).await.unwrap();
        create(&broker, NewUser::new("with-secret")).await.unwrap();
        add_secret(&broker, "with-secret").await;
        let weak = NewPassword::Hash(WEAK_HASH.into());
        create(&broker, with_password("with-weak-hash", weak)).await.unwrap();
        let ids = ["1", "2", "3"];
        let all = ids.map(|id| refused(&broker, login(name, "wrong", connect(id))));
        let reasons = join_all(all).await;
        let count = |wanted| reasons.iter().filter(|reason| **reason == wanted).count();
        let both = [count(BAD), count(ReasonCode::ServerUnavailable)];
        assert_eq!(both, [2, 1], "{name}: {reasons:?}");
        let secret = generate_secret();
        let all = ids.map(|id| refused(&broker, login(name, &secret, connect(id))));
        assert_eq!(join_all(all).await, [BAD; 3], "{name}");
    }
}

/// That of `correct horse`, by `mosquitto_passwd` 2.0.11: PBKDF2 with 101 iterations.
const WEAK_HASH: &str = "$7$101$Ew9iMhV+TB23qlVa$vvJsWY5jvic0sjRb4JgFyKNFNri3PV7/le04rqRoGjfrmtpeNTNogDwZrddr2groc/xK2szUrjZ+ocPmRp9urA==";

#[actix_rt::test]
async fn a_weak_hash_is_replaced_at_the_first_good_login_and_the_connection_goes_on() {
    let broker = world().await;
    let weak = NewPassword::Hash(WEAK_HASH.into());
    create(&broker, with_password("ann", weak)).await.unwrap();
    assert_eq!(refused(&broker, login("ann", "correct horsf", connect("c"))).await, BAD);
    let scheme = async || broker.find_user("ann").await.unwrap().password_scheme;
    assert_eq!(scheme().await, Some("pbkdf2"));
    let mut client = Client::connected(&broker, login("ann", "correct horse", connect("c"))).await;
    assert_eq!(scheme().await, Some("argon2id"));
    assert_eq!(broker.recheck().await.touched, 0);
    client.ping().await;
    Client::connected(&broker, login("ann", "correct horse", connect("d"))).await;
}

#[actix_rt::test]
async fn right_secrets_are_let_in_while_their_address_is_refused() {
    let throttle = ThrottleConfig { first_delay_ms: 0, ..ThrottleConfig::default() };
    let config = AuthenticationConfig { throttle, ..AuthenticationConfig::default() };
    let broker = world_with(sources(config)).await;
    create(&broker, NewUser::new("car")).await.unwrap();
    let (_, secret) = add_secret(&broker, "car").await;
    let mut last = BAD;
    for number in 0..20 {
        let id = format!("guess {number}");
        last = refused(&broker, login("car", &generate_secret(), connect(&id))).await;
    }
    assert_eq!(last, ReasonCode::ConnectionRateExceeded, "wrong secrets count as failures");
    Client::connected(&broker, login("car", &secret, connect("car"))).await;
}

#[actix_rt::test]
async fn accounts_and_the_sessions_of_their_users_survive_a_restart() {
    let disk = Disk::default();
    let power = || disk.power_with(sources(AuthenticationConfig::default()));
    let first = power().await;
    let mut secrets = Vec::new();
    for name in ["stays", "goes"] {
        create(&first.broker, NewUser::new(name)).await.unwrap();
        let (_, secret) = add_secret(&first.broker, name).await;
        let packet = login(name, &secret, connect_lasting(name, V5));
        let mut client = Client::connected(&first.broker, packet).await;
        client.subscribe("t", QOS_1).await;
        client.vanish().await;
        secrets.push(secret);
    }
    first.crash();
    let second = power().await;
    assert_eq!(second.broker.client("stays").await.unwrap().unwrap().subscriptions, 1);
    // The absent session still knows which secret has proven it.
    let id = second.broker.find_user("stays").await.unwrap().secrets[0].id;
    add_secret(&second.broker, "stays").await;
    let mut live = Client::connected(
        &second.broker,
        login("stays", &secrets[0], connect_lasting("stays", V5)),
    )
    .await;
    second.broker.publish("t", b"kept", QOS_1, false).await.unwrap();
    assert_eq!(live.receive_payload().await, "kept");
    change(&second.broker, "stays", UserChange::RemoveSecret(id)).await.unwrap();
    live.expect_disconnect(ReasonCode::NotAuthorized).await;
    let removed = change(&second.broker, "goes", UserChange::Remove).await.unwrap();
    assert_eq!(removed.sessions.touched, 1);
    second.crash();
    let third = power().await;
    assert!(third.broker.client("goes").await.unwrap().is_none());
    let names: Vec<_> = third.broker.list_users(ListUsers::new(10)).await.unwrap();
    assert_eq!(names.iter().map(|user| &*user.name).collect::<Vec<_>>(), ["stays"]);
    third.crash();
}

#[actix_rt::test]
async fn each_account_of_an_import_has_a_result() {
    let broker = world().await;
    let import = async |users: Vec<NewUser>, existing| {
        broker.import_users(ImportUsers::new(users, existing, HERE)).await
    };
    let weak = || with_password("hashed", NewPassword::Hash(WEAK_HASH.into()));
    let users = || {
        let wrong = with_password("wrong", NewPassword::Hash("$1$a$b".into()));
        vec![weak(), wrong, NewUser::new("ops"), NewUser::new("a:b"), NewUser::new("car")]
    };
    let wrong =
        [Err(UsersError::InvalidHash), Err(UsersError::InFile), Err(UsersError::InvalidName)];
    let with_wrong = |first, last| [vec![first], wrong.to_vec(), vec![last]].concat();
    let created = Ok(Imported::Created);
    assert_eq!(import(users(), ExistingUsers::Fail).await, with_wrong(created, created));
    let exists = Err(UsersError::Exists);
    assert_eq!(import(users(), ExistingUsers::Fail).await, with_wrong(exists, exists));
    let skipped = Ok(Imported::Skipped);
    assert_eq!(import(users(), ExistingUsers::Skip).await, with_wrong(skipped, skipped));
    let mut client =
        Client::connected(&broker, login("hashed", "correct horse", connect("c"))).await;
    let replaced = Ok(Imported::Replaced);
    assert_eq!(import(users(), ExistingUsers::Replace).await, with_wrong(replaced, replaced));
    assert_eq!(broker.check_sessions_of(Some(vec!["hashed".into()])).await.touched, 1);
    client.expect_disconnect(ReasonCode::NotAuthorized).await;

    // A name that comes twice.
    let twice = vec![NewUser::new("new"), NewUser::new("car"), NewUser::new("new")];
    assert_eq!(import(twice, ExistingUsers::Skip).await, [created, skipped, skipped]);

    // An export has what an import takes.
    let mut question = ListUsers::new(10);
    question.with_hashes = true;
    let exported = broker.list_users(question).await.unwrap();
    let hashes = exported[1].hashes.as_ref().unwrap();
    assert_eq!((&*exported[1].name, hashes.password.as_deref()), ("hashed", Some(WEAK_HASH)));
}

#[actix_rt::test]
async fn without_a_source_in_the_store_there_are_no_accounts() {
    let broker = world_with(|builder| builder.authenticator(AllowAll)).await;
    assert_eq!(broker.find_user("ann").await.unwrap_err(), UsersError::NoSource);
    let outcome = create(&broker, NewUser::new("ann")).await;
    assert_eq!(outcome.unwrap_err(), UsersError::NoSource);
}

/// Without a shutdown, what was noted an hour ago is stored; a removed secret leaves nothing.
#[actix_rt::test]
async fn the_last_use_of_a_secret_outlives_the_broker() {
    let disk = Disk::default();
    let power = || disk.power_with(sources(AuthenticationConfig::default()));
    let first = power().await;
    create(&first.broker, NewUser::new("car-17")).await.unwrap();
    let (_, secret) = add_secret(&first.broker, "car-17").await;
    Client::connected(&first.broker, login("car-17", &secret, connect("c"))).await;
    let used = first.broker.find_user("car-17").await.unwrap().secrets[0].last_used_at;
    assert!(used.is_some());
    pass(secs(3_800)).await;
    first.crash();
    let second = power().await;
    let user = second.broker.find_user("car-17").await.unwrap();
    assert_eq!(user.secrets[0].last_used_at, used);
    change(&second.broker, "car-17", UserChange::Remove).await.unwrap();
    pass(secs(3_800)).await;
    let records = second.broker.records();
    assert_eq!(records.list("credential-uses", None, 10).await.unwrap(), []);
}
