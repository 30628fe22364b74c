//! What only the environment knows: what object stores are opened with, and the key of pseudonyms.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Settings from the environment, and from the files that it names. They are never printed, and taken out of
/// what a store says before anybody reads it.
///
/// | store | variables | files |
/// |---|---|---|
/// | `s3://` | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`, `AWS_WEB_IDENTITY_TOKEN_FILE`, … | `~/.aws/credentials` and `~/.aws/config`, of `AWS_PROFILE` |
/// | `gs://` | `GOOGLE_APPLICATION_CREDENTIALS`, `GOOGLE_SERVICE_ACCOUNT`, … | `gcloud`'s application default credentials |
/// | `az://` | `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`, `AZURE_STORAGE_SAS_KEY`, … | |
///
/// Where none of them is there, the machine's own identity is asked for (instance profiles, workload identity).
#[derive(Clone, Default)]
pub struct Access {
    variables: Arc<BTreeMap<String, String>>,
    /// What users' ids are hashed with, where they are.
    pseudonyms: Option<[u8; 32]>,
}

/// What the key of pseudonyms is derived for, so that the same secret elsewhere gives other ones.
const PSEUDONYMS: &str = "lamplighter 2026-11-25 pseudonyms of users";
/// A shorter secret can be tried out.
const LEAST_SECRET: usize = 16;

/// A variable of this kind holds a secret.
const SECRET: [&str; 6] = ["key", "secret", "token", "password", "sas", "credential"];
/// What belongs together.
const CREDENTIALS: [&str; 3] = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
/// What takes a secret's place.
const HIDDEN: &str = "[hidden]";

impl Access {
    /// Takes what concerns stores out of an environment.
    pub fn of(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let concerns = |name: &str| {
            name == "HOME" || ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|of| name.starts_with(of))
        };
        let variables = environment.into_iter().filter(|(name, value)| concerns(name) && !value.is_empty());
        Self { variables: Arc::new(variables.collect()), pseudonyms: None }
    }

    /// The same with a secret that users' ids are hashed with; `None` where it is too short to be one.
    pub fn with_pseudonyms(self, secret: &str) -> Option<Self> {
        let key = (secret.len() >= LEAST_SECRET).then(|| blake3::derive_key(PSEUDONYMS, secret.as_bytes()));
        key.map(|key| Self { pseudonyms: Some(key), ..self })
    }

    /// A user's id as every table has it: its pseudonym (32 hexadecimal digits) where the job has a key, else
    /// itself.
    pub fn pseudonym(&self, user_id: &str) -> String {
        match &self.pseudonyms {
            Some(key) => blake3::keyed_hash(key, user_id.as_bytes()).to_hex()[..32].to_owned(),
            None => user_id.to_owned(),
        }
    }

    /// What tells the key of pseudonyms from others, and tells nothing else; empty where there is none.
    pub fn fingerprint(&self) -> String {
        self.pseudonyms.map_or(String::new(), |key| blake3::hash(&key).to_hex()[..16].to_owned())
    }

    pub(super) fn has_pseudonyms(&self) -> bool {
        self.pseudonyms.is_some()
    }

    /// A store's settings, by the names that the library has for them.
    pub(super) fn settings(&self, scheme: &str) -> Vec<(String, String)> {
        let mut settings: BTreeMap<String, String> = BTreeMap::new();
        if scheme == "s3" {
            settings.extend(self.profile());
        }
        // Half of one pair of keys and half of another open nothing.
        if self.variables.contains_key("AWS_ACCESS_KEY_ID") {
            CREDENTIALS.iter().for_each(|name| drop(settings.remove(*name)));
        }
        let variables = self.variables.iter().filter(|(name, _)| *name != "HOME");
        settings.extend(variables.map(|(name, value)| (name.to_lowercase(), value.clone())));
        // As the AWS tools have it, the endpoint of one service goes before that of all.
        if let Some(endpoint) = settings.remove("aws_endpoint_url_s3") {
            settings.insert("aws_endpoint_url".to_owned(), endpoint);
        }
        settings.into_iter().collect()
    }

    /// What the AWS tools' own files say of the profile in use.
    fn profile(&self) -> Vec<(String, String)> {
        let variable = |name: &str| self.variables.get(name).cloned();
        let home = variable("HOME").unwrap_or_default();
        let name = variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
        let file = |name: &str, usual: &str| {
            let path = variable(name).unwrap_or_else(|| format!("{home}/.aws/{usual}"));
            std::fs::read_to_string(path).unwrap_or_default()
        };
        let mut settings = section(&file("AWS_CONFIG_FILE", "config"), &[&format!("profile {name}"), &name]);
        settings.extend(section(&file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), &[&name]));
        settings.into_iter().filter_map(|(key, value)| Some((known(&key)?.to_owned(), value))).collect()
    }

    /// A text without any secret of the environment, and without what a URL says after its path.
    pub(super) fn redacted(&self, text: &str) -> String {
        let is_secret = |name: &str| SECRET.iter().any(|kind| name.to_lowercase().contains(kind));
        let mut text = text.to_owned();
        let secrets = self.settings("s3").into_iter().filter(|(name, _)| is_secret(name));
        for (_, secret) in secrets.filter(|(_, secret)| secret.len() >= 4) {
            text = text.replace(&secret, HIDDEN);
        }
        let words: Vec<String> = text
            .split(' ')
            .map(|word| match word.split_once('?') {
                Some((url, query)) if url.contains("://") && !query.is_empty() => format!("{url}?{HIDDEN}"),
                _ => word.to_owned(),
            })
            .collect();
        words.join(" ")
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Access")
    }
}

/// The library's name of a profile's key.
fn known(key: &str) -> Option<&'static str> {
    match key {
        "region" => Some("aws_region"),
        "endpoint_url" => Some("aws_endpoint_url"),
        _ => CREDENTIALS.into_iter().find(|name| *name == key),
    }
}

/// The keys of a file's section of one of these names; nested settings are not among them.
fn section(text: &str, names: &[&str]) -> BTreeMap<String, String> {
    let (mut keys, mut inside) = (BTreeMap::new(), false);
    for line in text.lines() {
        if let Some(name) = line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = names.contains(&name.trim());
        } else if let (true, Some((key, value))) = (inside, line.split_once('='))
            && !line.starts_with([' ', '\t', '#', ';'])
        {
            keys.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(variables: &[(&str, &str)]) -> Access {
        Access::of(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn the_environment_goes_before_the_profile_and_the_profile_is_the_one_in_use() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(home.path().join(".aws").join(name), text).unwrap();
        write(
            "config",
            "[default]\nregion = us-east-1\n[profile shop]\nregion=eu-central-1\ns3 =\n  region = x\n",
        );
        write(
            "credentials",
            "[default]\naws_access_key_id = A\naws_session_token = T\n[shop]\n# ours\naws_access_key_id = B\naws_secret_access_key = C=\n",
        );
        let home = home.path().to_str().unwrap();
        let of = |access: &Access, name: &str| {
            access.settings("s3").into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
        };
        let shop = access(&[("HOME", home), ("AWS_PROFILE", "shop"), ("PATH", "/bin")]);
        assert_eq!(of(&shop, "aws_access_key_id").as_deref(), Some("B"));
        assert_eq!(of(&shop, "aws_secret_access_key").as_deref(), Some("C="));
        assert_eq!(of(&shop, "aws_region").as_deref(), Some("eu-central-1"));
        assert_eq!(of(&shop, "path"), None);
        let given = access(&[("HOME", home), ("AWS_ACCESS_KEY_ID", "D"), ("AWS_SECRET_ACCESS_KEY", "E")]);
        assert_eq!(of(&given, "aws_access_key_id").as_deref(), Some("D"));
        assert_eq!(of(&given, "aws_secret_access_key").as_deref(), Some("E"));
        assert_eq!(
            of(&given, "aws_session_token"),
            None,
            "keys of the environment are not mixed with a file's"
        );
        assert_eq!(of(&given, "aws_region").as_deref(), Some("us-east-1"));
    }

    #[test]
    fn pseudonyms_are_those_of_the_key_and_of_no_other() {
        let of = |secret: &str| Access::default().with_pseudonyms(secret).unwrap().pseudonym("u-1");
        assert_eq!(of("a secret of sixteen letters"), of("a secret of sixteen letters"));
        assert_ne!(of("a secret of sixteen letters"), of("a secret of sixteen letterz"));
        assert_eq!(of("a secret of sixteen letters").len(), 32);
        assert_eq!(Access::default().pseudonym("u-1"), "u-1");
        assert!(Access::default().with_pseudonyms("short").is_none());
    }

    #[test]
    fn no_secret_is_left_in_what_a_store_says() {
        let access = access(&[("AWS_SECRET_ACCESS_KEY", "hunter22"), ("AWS_REGION", "eu-central-1")]);
        let said = "in eu-central-1: GET https://host/a?sig=abc%3D with hunter22 failed";
        let expected = "in eu-central-1: GET https://host/a?[hidden] with [hidden] failed";
        assert_eq!(access.redacted(said), expected);
        assert_eq!(format!("{access:?}"), "Access");
    }
}
