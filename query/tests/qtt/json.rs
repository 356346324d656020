//! JSON whose numbers keep their text: `1.10` is not `1.1`.

use std::fmt;

#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The value that a whole text is.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value()?;
        reader.skip();
        if reader.at == text.len() { Ok(value) } else { Err(format!("more than one value: {}", &text[reader.at..])) }
    }

    pub fn get(&self, name: &str) -> &Self {
        let Self::Object(fields) = self else { return &Self::Null };
        fields.iter().find(|(field, _)| field == name).map_or(&Self::Null, |(_, value)| value)
    }

    pub fn list(&self) -> &[Self] {
        if let Self::List(list) = self { list } else { &[] }
    }

    pub fn fields(&self) -> &[(String, Self)] {
        if let Self::Object(fields) = self { fields } else { &[] }
    }

    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub fn is_null(&self) -> bool {
        *self == Self::Null
    }

    pub fn is_true(&self) -> bool {
        *self == Self::Bool(true)
    }

    pub fn integer(&self) -> Option<i64> {
        if let Self::Number(number) = self { number.parse().ok() } else { None }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(number) => f.write_str(number),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::List(list) => {
                let each: Vec<String> = list.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", each.join(","))
            }
            Self::Object(fields) => {
                let each: Vec<String> = fields.iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
                write!(f, "{{{}}}", each.join(","))
            }
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn skip(&mut self) {
        self.at += self.text[self.at..].len() - self.text[self.at..].trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.text[self.at..].starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn value(&mut self) -> Result<Json, String> {
        self.skip();
        for (token, value) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))] {
            if self.take(token) {
                return Ok(value);
            }
        }
        match self.text[self.at..].chars().next() {
            Some('"') => Ok(Json::Text(self.string()?)),
            Some('[') => {
                let mut list = Vec::new();
                self.several(']', |reader| {
                    list.push(reader.value()?);
                    Ok(())
                })?;
                Ok(Json::List(list))
            }
            Some('{') => {
                let mut fields = Vec::new();
                self.several('}', |reader| {
                    reader.skip();
                    let name = reader.string()?;
                    reader.skip();
                    if !reader.take(":") {
                        return Err("no colon".to_owned());
                    }
                    fields.push((name, reader.value()?));
                    Ok(())
                })?;
                Ok(Json::Object(fields))
            }
            _ => {
                let rest = &self.text[self.at..];
                let length = rest.find(|one: char| !(one.is_ascii_alphanumeric() || "+-.".contains(one))).unwrap_or(rest.len());
                if length == 0 {
                    return Err(format!("no value at {rest:.20}"));
                }
                self.at += length;
                Ok(Json::Number(rest[..length].to_owned()))
            }
        }
    }

    fn string(&mut self) -> Result<String, String> {
        let rest = &self.text[self.at..];
        let mut escaped = false;
        let end = rest.char_indices().skip(1).find(|(_, one)| {
            let ends = *one == '"' && !escaped;
            escaped = *one == '\\' && !escaped;
            ends
        });
        let (end, _) = end.ok_or("a string without end")?;
        self.at += end + 1;
        serde_json::from_str(&rest[..=end]).map_err(|error| error.to_string())
    }

    fn several(&mut self, end: char, mut one: impl FnMut(&mut Self) -> Result<(), String>) -> Result<(), String> {
        self.at += 1;
        self.skip();
        if self.take(&end.to_string()) {
            return Ok(());
        }
        loop {
            one(self)?;
            self.skip();
            if self.take(&end.to_string()) {
                return Ok(());
            }
            if !self.take(",") {
                return Err(format!("no comma at {:.20}", &self.text[self.at..]));
            }
        }
    }
}
