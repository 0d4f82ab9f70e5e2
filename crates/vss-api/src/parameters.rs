//! Reading the parameters of a call so that a mistake is answered with the name of the field.
//!
//! serde's errors name a field only sometimes, and its adjacently tagged enums refuse `"parameters": {}` for calls without
//! parameters, which Varlink clients send. This deserializer remembers the field that it is in and reads left out, null and
//! empty parameters alike.

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor,
    value::{MapAccessDeserializer, StrDeserializer},
};
use serde_json::{Map, Value, map};
use std::fmt;

/// Why a call could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No call has this name.
    UnknownMethod,
    /// The field has the wrong type, is missing, or is not a field of the call.
    Field {
        /// Its name.
        name: String,
        /// What is wrong with it, for the log.
        why: String,
    },
}

impl de::StdError for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownMethod => f.write_str("no such method"),
            Self::Field { name, why } => write!(f, "field {name}: {why}"),
        }
    }
}

impl Fault {
    fn field(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Field { name: name.into(), why: why.into() }
    }

    /// Puts in the field's name where the error came without one.
    fn or_in(self, field: &str) -> Self {
        match self {
            Self::Field { name, why } if name.is_empty() => Self::field(field, why),
            other => other,
        }
    }
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::field("", message.to_string())
    }

    fn unknown_variant(_variant: &str, _expected: &'static [&'static str]) -> Self {
        Self::UnknownMethod
    }

    fn unknown_field(field: &str, _expected: &'static [&'static str]) -> Self {
        Self::field(field, "the call has no such field")
    }

    fn missing_field(field: &'static str) -> Self {
        Self::field(field, "missing")
    }
}

/// Reads an enum that is tagged with `method` and has its content in `parameters`.
pub(crate) fn read_call<T: DeserializeOwned>(method: &str, parameters: Map<String, Value>) -> Result<T, Fault> {
    let message = Message { method, parameters: Some(parameters), begun: false };
    T::deserialize(MapAccessDeserializer::new(message)).map_err(|fault| fault.or_in("parameters"))
}

/// The value without the fields that are null, at every depth: in Varlink they are the same as left out.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let given = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(given.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Reads a struct from the fields of an object.
pub(crate) fn read_fields<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, Fault> {
    T::deserialize(Fields(fields))
}

/// The two fields of a message that serde's adjacently tagged enums look at, the tag first.
struct Message<'a> {
    method: &'a str,
    parameters: Option<Map<String, Value>>,
    begun: bool,
}

impl<'de> MapAccess<'de> for Message<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let key = match (self.begun, &self.parameters) {
            (false, _) => "method",
            (true, Some(_)) => "parameters",
            (true, None) => return Ok(None),
        };
        let key: StrDeserializer<'_, Fault> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        if !self.begun {
            self.begun = true;
            let method: StrDeserializer<'_, Fault> = self.method.into_deserializer();
            return seed.deserialize(method);
        }
        seed.deserialize(Fields(self.parameters.take().unwrap_or_default()))
    }
}

/// An object whose fields are read one by one.
struct Fields(Map<String, Value>);

impl<'de> Deserializer<'de> for Fields {
    type Error = Fault;

    /// What a call without parameters asks for: nothing, or an object without fields.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.into_iter().find(|(_, value)| !value.is_null()) {
            None => visitor.visit_unit(),
            Some((name, _)) => Err(de::Error::unknown_field(&name, &[])),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(FieldAccess { fields: self.0.into_iter(), current: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct enum identifier ignored_any
    }
}

struct FieldAccess {
    fields: map::IntoIter,
    current: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for FieldAccess {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        // Varlink sends optional fields that have no value as null or not at all.
        self.current = self.fields.find(|(_, value)| !value.is_null());
        let Some((name, _)) = &self.current else { return Ok(None) };
        let key: StrDeserializer<'_, Fault> = name.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|fault| fault.or_in(name))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((name, value)) = self.current.take() else { return Err(de::Error::custom("a value without a field")) };
        seed.deserialize(without_nulls(value)).map_err(|error| Fault::field(name, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{management, requester};
    use serde_json::json;

    fn requester(method: &str, parameters: Value) -> Result<requester::Call, Fault> {
        let Value::Object(parameters) = parameters else { panic!("not an object") };
        read_call(&format!("{}.{method}", requester::INTERFACE), parameters)
    }

    fn field(result: Result<requester::Call, Fault>) -> String {
        match result {
            Err(Fault::Field { name, .. }) => name,
            other => panic!("no field is named: {other:?}"),
        }
    }

    #[test]
    fn empty_parameters_are_no_parameters() {
        assert_eq!(
            requester("StartSnapshotSet", json!({})),
            Ok(requester::Call::StartSnapshotSet(vss_model::CreationOptions::default()))
        );
        assert_eq!(
            requester("DoSnapshotSet", json!({})),
            Ok(requester::Call::DoSnapshotSet(requester::DoSnapshotSet { strict: false }))
        );
    }

    #[test]
    fn each_mistake_names_its_field() {
        assert_eq!(field(requester("DoSnapshotSet", json!({"strict": "yes"}))), "strict");
        assert_eq!(field(requester("DoSnapshotSet", json!({"strict": true, "fast": true}))), "fast");
        assert_eq!(field(requester("StartSnapshotSet", json!({"fast": true}))), "fast");
        assert_eq!(field(requester("InitializeForBackup", json!({}))), "requester");
        assert_eq!(field(requester("SetContext", json!({"context": "lunch"}))), "context");
        assert_eq!(field(requester("UnexposeSnapshot", json!({"shadow_id": "x"}))), "shadow_id");
        assert_eq!(field(requester("SetBackupState", json!({"state": {"select_components": 1}}))), "state");
    }

    #[test]
    fn null_is_left_out() {
        assert_eq!(
            requester("DoSnapshotSet", json!({"strict": null})),
            Ok(requester::Call::DoSnapshotSet(requester::DoSnapshotSet { strict: false }))
        );
        assert_eq!(field(requester("InitializeForBackup", json!({"requester": null}))), "requester");
        let component = json!({"instance_id": vss_model::WriterInstanceId::random(), "type": "database",
            "class_id": vss_model::WriterClassId::random(), "logical_path": null, "name": "db"});
        let call = requester("SetBackupSucceeded", json!({"component": component, "succeeded": true}));
        assert!(matches!(call, Ok(requester::Call::SetBackupSucceeded(_))), "{call:?}");
    }

    #[test]
    fn a_name_that_is_no_method_is_told_apart() {
        assert_eq!(requester("MakeCoffee", json!({})), Err(Fault::UnknownMethod));
    }

    #[test]
    fn fields_with_defaults_may_be_left_out() {
        let call = read_call::<management::Call>("org.linuxvss.Management.DeleteShadows", Map::new());
        assert_eq!(call, Ok(management::Call::DeleteShadows(management::Selection::default())));
    }
}
