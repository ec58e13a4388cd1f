//! Values that may be written in two ways: a path or a list of paths; a name or a table with `kind`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// `"a"` or `["a", "b"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OneOrMany(pub Vec<String>);

impl OneOrMany {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for OneOrMany {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Paths;
        impl<'de> Visitor<'de> for Paths {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path or a list of paths")
            }

            fn visit_str<E: Error>(self, path: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![path.into()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, paths: A) -> Result<OneOrMany, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(paths)).map(OneOrMany)
            }
        }
        deserializer.deserialize_any(Paths)
    }
}

/// `"name"` for `{ kind = "name" }`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KindOr<T>(pub T);

impl<T: Serialize> Serialize for KindOr<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for KindOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrTable<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for NameOrTable<T> {
            type Value = KindOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or a table with `kind`")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<KindOr<T>, E> {
                let table = [("kind", name)].into_iter();
                T::deserialize(MapDeserializer::new(table)).map(KindOr)
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<KindOr<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(table)).map(KindOr)
            }
        }
        deserializer.deserialize_any(NameOrTable(PhantomData))
    }
}
