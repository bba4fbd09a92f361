//! Formats packets for logs: passwords, authentication data and payloads appear as their length
//! only, and User Properties without their values.
//!
//! This is the only module that formats fields that may hold a secret.

use std::fmt::{Debug, Formatter, Result};

use super::{
    AuthProperties, ConnAckProperties, Connect, ConnectProperties, LastWill, Message, Publication,
    PublicationBuilder, Publish, PublishProperties,
};

/// Bytes that are shown as their number only.
struct Hidden(usize);

impl Hidden {
    fn of(bytes: &[u8]) -> Self {
        Self(bytes.len())
    }
}

impl Debug for Hidden {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        write!(formatter, "<{} bytes>", self.0)
    }
}

/// Shows the named fields, and the fields in `hide` by their length.
macro_rules! debug {
    ($type:ident { $($field:ident),* } hide { $($hidden:ident),* }) => {
        impl Debug for $type<'_> {
            fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
                // Destructures every field, so that the compiler rejects a forgotten one.
                let Self { $($field,)* $($hidden,)* } = self;
                formatter
                    .debug_struct(stringify!($type))
                    $(.field(stringify!($field), $field))*
                    $(.field(stringify!($hidden), &$hidden.hidden()))*
                    .finish()
            }
        }
    };
}

/// Returns a placeholder for the bytes, if there are any.
trait Hide {
    fn hidden(&self) -> impl Debug;
}

impl Hide for &[u8] {
    fn hidden(&self) -> impl Debug {
        Hidden::of(self)
    }
}

impl Hide for Option<&[u8]> {
    fn hidden(&self) -> impl Debug {
        self.map(Hidden::of)
    }
}

debug!(Connect { version, is_bridge, clean_start, keep_alive, client_id, will, username, properties }
    hide { password });
debug!(LastWill { topic, qos, retain, properties } hide { payload });
debug!(Publish { flags, topic, packet_id, properties } hide { payload });
debug!(Publication { topic, qos, retain, expires_at } hide { properties, payload });
debug!(PublicationBuilder { topic, qos, retain, properties, user_properties, unusable_user_property }
    hide { payload });
debug!(ConnectProperties {
    session_expiry_interval, receive_maximum, maximum_packet_size, topic_alias_maximum,
    request_response_information, request_problem_information, user_properties,
    authentication_method
} hide { authentication_data });
debug!(ConnAckProperties {
    session_expiry_interval, receive_maximum, maximum_qos, retain_available, maximum_packet_size,
    assigned_client_identifier, topic_alias_maximum, reason_string, user_properties,
    wildcard_subscription_available, subscription_identifiers_available,
    shared_subscription_available, server_keep_alive, response_information, server_reference,
    authentication_method
} hide { authentication_data });
debug!(PublishProperties {
    message_expiry_interval, topic_alias, subscription_identifiers, payload_format_indicator,
    content_type, response_topic, user_properties
} hide { correlation_data });
debug!(AuthProperties { authentication_method, reason_string, user_properties }
    hide { authentication_data });

impl Debug for Message {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        self.publication().fmt(formatter)
    }
}
