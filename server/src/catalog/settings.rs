//! What a setting is: its name, type, default, the values that it may have, and what it says of itself. Messages are
//! those of Kafka's `ConfigDef`, since tools show them.

/// A setting's type, with Kafka's number for it in DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// Which values a setting may have, besides those that its type allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Any.
    Any,
    /// A number at or above this one.
    AtLeast(i64),
    /// A number from the first to the second.
    Between(i64, i64),
    /// A number from 1 to 9, or -1 (gzip).
    GzipLevel,
    /// A fraction from 0 to 1.
    Fraction,
    /// One of these words; of a list, each of its words.
    OneOf(&'static [&'static str]),
    /// Replicas of a throttled replication: `*` or partition:broker pairs.
    Replicas,
    /// Only `false`: the broker has no such function. The message says so.
    False(&'static str),
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Kafka's name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its default; `None` for Kafka's null.
    pub default: Option<&'static str>,
    /// Its values.
    pub rule: Rule,
    /// The broker settings that stand behind a topic's, nearest first, with the factor from their unit to this one's.
    pub synonyms: &'static [(&'static str, i64)],
    /// May be changed while the broker runs.
    pub dynamic: bool,
    /// What it does, for tools that show documentation.
    pub doc: &'static str,
}

impl Setting {
    /// Whether it may have this value.
    ///
    /// # Errors
    /// The reason, in Kafka's words.
    pub fn validate(&self, value: &str) -> Result<(), String> {
        let wrong = |shown: &str, why: &str| Err(format!("Invalid value {shown} for configuration {}: {why}", self.name));
        let text = value.trim();
        match self.kind {
            Kind::Boolean if !text.eq_ignore_ascii_case("true") && !text.eq_ignore_ascii_case("false") => {
                wrong(value, "Expected value to be either true or false")
            }
            Kind::Boolean => match self.rule {
                Rule::False(why) if text.eq_ignore_ascii_case("true") => Err(why.into()),
                _ => Ok(()),
            },
            Kind::Int => match text.parse::<i32>() {
                Ok(number) => self.number(i64::from(number)).or_else(|why| wrong(text, &why)),
                Err(_) => wrong(value, "Not a number of type INT"),
            },
            Kind::Long => match text.parse::<i64>() {
                Ok(number) => self.number(number).or_else(|why| wrong(text, &why)),
                Err(_) => wrong(value, "Not a number of type LONG"),
            },
            Kind::Double => match text.parse::<f64>() {
                Ok(number) if self.rule == Rule::Fraction && number < 0.0 => wrong(&format!("{number:?}"), "Value must be at least 0"),
                Ok(number) if self.rule == Rule::Fraction && number > 1.0 => wrong(&format!("{number:?}"), "Value must be no more than 1"),
                Ok(number) if number.is_finite() => Ok(()),
                _ => wrong(value, "Not a number of type DOUBLE"),
            },
            Kind::String => match self.rule {
                Rule::OneOf(words) if !words.contains(&text) => wrong(text, &format!("String must be one of: {}", words.join(", "))),
                _ => Ok(()),
            },
            Kind::List => match self.rule {
                Rule::OneOf(words) => match list(value).find(|word| !words.contains(word)) {
                    Some(word) => wrong(word, &format!("String must be one of: {}", words.join(", "))),
                    None => Ok(()),
                },
                Rule::Replicas if !replicas(value) => wrong(
                    &format!("[{}]", list(value).collect::<Vec<_>>().join(", ")),
                    &format!(
                        "{} must be the literal '*' or a list of replicas in the following format: \
                         [partitionId]:[brokerId],[partitionId]:[brokerId],...",
                        self.name
                    ),
                ),
                _ => Ok(()),
            },
        }
    }

    fn number(&self, number: i64) -> Result<(), String> {
        match self.rule {
            Rule::AtLeast(least) if number < least => Err(format!("Value must be at least {least}")),
            Rule::Between(least, _) if number < least => Err(format!("Value must be at least {least}")),
            Rule::Between(_, most) if number > most => Err(format!("Value must be no more than {most}")),
            Rule::GzipLevel if number != -1 && !(1..=9).contains(&number) => Err("Value must be between 1 and 9 or equal to -1".into()),
            _ => Ok(()),
        }
    }
}

/// The words of a list value.
pub fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn replicas(value: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    value.trim() == "*" || list(value).all(|pair| pair.split_once(':').is_some_and(|(left, right)| number(left) && number(right)))
}
