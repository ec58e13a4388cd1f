//! The Kubernetes manifests, without a cluster: built by kubectl, checked against the published schemas, and asked for
//! what the schemas do not know. Whether a cluster runs them is not shown here.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::{deploy, skipped};

const VARIANTS: [&str; 4] = ["base", "overlays/deployment", "overlays/jobset", "overlays/object-storage"];
const VERSIONS: std::ops::RangeInclusive<u32> = 30..=37;
const TO_JSON: &str = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))";
/// What the published model of a JobSet does not know, it drops on the way through.
const THROUGH_MODEL: &str = "
import json, sys, yaml
from kubeflow_trainer_api import models
for document in yaml.safe_load_all(open(sys.argv[1])):
    if document['kind'] == 'JobSet':
        through = models.JobsetV1alpha2JobSet.from_dict(document).to_dict()
        if through != document:
            sys.exit('not known to the model: ' + json.dumps(document['spec']))
        print('JobSet')
";

/// `CAROUSEL_DEPLOY_TOOLS`: a folder whose `bin` has kubernetes-validate, kubectl and a Python with their packages.
struct Tools(PathBuf);

impl Tools {
    fn find() -> Option<Self> {
        let what = "the manifests' schemas";
        let Some(folder) = std::env::var_os("CAROUSEL_DEPLOY_TOOLS") else {
            skipped(what, "CAROUSEL_DEPLOY_TOOLS is not set; deploy/tools.sh DIR makes it");
            return None;
        };
        let bin = PathBuf::from(folder).join("bin");
        let lacks = ["kubectl", "kubernetes-validate", "python"].into_iter().find(|t| !bin.join(t).exists());
        if let Some(tool) = lacks {
            skipped(what, &format!("{} has no {tool}", bin.display()));
            return None;
        }
        Some(Self(bin))
    }

    fn command(&self, tool: &str) -> Command {
        Command::new(self.0.join(tool))
    }

    fn build(&self, variant: &str) -> String {
        let output =
            self.command("kubectl").arg("kustomize").arg(deploy("kubernetes").join(variant)).output();
        succeeded(variant, output.unwrap())
    }

    fn objects(&self, variant: &str) -> Vec<Value> {
        let (_folder, file) = kept(&self.build(variant));
        let input = fs::File::open(file).unwrap();
        let output = self.command("python").args(["-c", TO_JSON]).stdin(input).output().unwrap();
        serde_json::from_str(&succeeded(variant, output)).unwrap()
    }

    fn validate(&self, minor: u32, manifest: &str) -> Output {
        let (_folder, file) = kept(manifest);
        let version = format!("1.{minor}");
        let mut command = self.command("kubernetes-validate");
        command.args(["-k", &version, "--strict"]).arg(file).output().unwrap()
    }

    fn through_model(&self, manifest: &str) -> Output {
        let (_folder, file) = kept(manifest);
        self.command("python").args(["-c", THROUGH_MODEL]).arg(file).output().unwrap()
    }
}

fn kept(manifest: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("manifest.yaml");
    fs::write(&file, manifest).unwrap();
    (folder, file)
}

fn succeeded(what: &str, output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// The pods' templates by the names of their owners.
fn pods(objects: &[Value]) -> Vec<(String, &Value)> {
    let template = |object: &'_ Value| match object["kind"].as_str().unwrap() {
        "StatefulSet" | "Deployment" | "Job" => Some("/spec/template"),
        "JobSet" => Some("/spec/replicatedJobs/0/template/spec/template"),
        _ => None,
    };
    let of = |object: &'_ Value| object["kind"].as_str().unwrap().to_owned();
    objects.iter().filter_map(|o| Some((of(o), o.pointer(template(o)?).unwrap()))).collect()
}

fn arguments(pod: &Value) -> Vec<&str> {
    let arguments = pod["spec"]["containers"][0]["args"].as_array().unwrap();
    arguments.iter().map(|argument| argument.as_str().unwrap()).collect()
}

fn value_of<'a>(arguments: &[&'a str], flag: &str) -> &'a str {
    let found = arguments.iter().find_map(|a| a.strip_prefix(flag)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("{flag} is not in {arguments:?}"))
}

#[test]
fn every_variant_fits_the_strict_schemas_of_eight_versions() {
    let Some(tools) = Tools::find() else { return };
    for variant in VARIANTS {
        let manifest = tools.build(variant);
        for minor in VERSIONS {
            succeeded(&format!("{variant} for 1.{minor}"), tools.validate(minor, &manifest));
        }
    }
}

#[test]
fn a_misspelt_key_is_refused() {
    let Some(tools) = Tools::find() else { return };
    let manifest = tools.build("base");
    for (key, wrong) in [
        ("completions: 3", "completionz: 3"),
        ("runAsNonRoot", "runAsNonroot"),
        ("podSelector", "podSelecter"),
    ] {
        assert!(manifest.contains(key), "{key}");
        let output = tools.validate(34, &manifest.replace(key, wrong));
        assert!(!output.status.success(), "{wrong} was accepted");
    }
    let manifest = tools.build("overlays/jobset");
    assert_eq!(succeeded("the JobSet", tools.through_model(&manifest)).trim(), "JobSet");
    let output = tools.through_model(&manifest.replace("maxRestarts", "maxRestartz"));
    assert!(!output.status.success(), "maxRestartz was accepted");
}

#[test]
fn every_variant_has_one_coordinator_and_one_owner_of_workers() {
    let Some(tools) = Tools::find() else { return };
    let owners = ["Job", "Deployment", "JobSet", "Job"];
    for (variant, owner) in VARIANTS.into_iter().zip(owners) {
        let objects = tools.objects(variant);
        let kinds: BTreeSet<String> = pods(&objects).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, BTreeSet::from(["StatefulSet".to_owned(), owner.to_owned()]), "{variant}");
        assert_eq!(of_kind(&objects, "StatefulSet")[0]["spec"]["replicas"], 1, "{variant}");
        let service = of_kind(&objects, "Service")[0];
        assert_eq!(service["spec"]["clusterIP"], "None", "{variant}");
        let coordinator = pods(&objects).into_iter().find(|(kind, _)| kind == "StatefulSet").unwrap().1;
        for (key, value) in service["spec"]["selector"].as_object().unwrap() {
            assert_eq!(&coordinator["metadata"]["labels"][key], value, "{variant}: {key}");
        }
    }
}

#[test]
fn workers_find_the_service_and_have_a_cpu_for_each_thread() {
    let Some(tools) = Tools::find() else { return };
    for variant in VARIANTS {
        let objects = tools.objects(variant);
        let service = of_kind(&objects, "Service")[0]["metadata"]["name"].as_str().unwrap();
        for (kind, pod) in pods(&objects) {
            let (arguments, resources) = (arguments(pod), &pod["spec"]["containers"][0]["resources"]);
            assert_eq!(
                resources["requests"], resources["limits"],
                "{variant} {kind}: guaranteed, not shared"
            );
            if arguments[0] == "worker" {
                assert_eq!(value_of(&arguments, "--coordinator"), format!("{service}:7700"), "{variant}");
                assert_eq!(resources["limits"]["cpu"], value_of(&arguments, "--threads"), "{variant}");
                let grace = pod["spec"]["terminationGracePeriodSeconds"].as_u64();
                assert!(grace.is_some_and(|grace| grace >= 60), "{variant}: {grace:?}");
            } else {
                assert_eq!(arguments[0], "coordinator", "{variant}");
                assert!(arguments.contains(&"--start-or-resume"), "{variant}");
            }
        }
    }
}

#[test]
fn every_pod_is_locked_down_and_uses_only_secrets_that_are_made() {
    let Some(tools) = Tools::find() else { return };
    let kustomization = fs::read_to_string(deploy("kubernetes/secrets/kustomization.yaml")).unwrap();
    for variant in VARIANTS {
        let objects = tools.objects(variant);
        for (kind, pod) in pods(&objects) {
            let (spec, container) = (&pod["spec"], &pod["spec"]["containers"][0]);
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{variant} {kind}");
            assert_eq!(spec["automountServiceAccountToken"], false, "{variant} {kind}");
            assert_eq!(
                spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault",
                "{variant} {kind}"
            );
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false, "{variant} {kind}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{variant} {kind}");
            assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]), "{variant} {kind}");
            for volume in spec["volumes"].as_array().unwrap() {
                let Some(secret) = volume["secret"]["secretName"].as_str() else { continue };
                assert!(kustomization.contains(&format!("name: {secret}\n")), "{variant}: {secret}");
            }
        }
    }
}

#[test]
fn what_no_policy_names_is_denied_and_the_coordinator_is_open_to_workers_alone() {
    let Some(tools) = Tools::find() else { return };
    for variant in VARIANTS {
        let objects = tools.objects(variant);
        let policies = of_kind(&objects, "NetworkPolicy");
        let named = |name: &str| policies.iter().find(|policy| policy["metadata"]["name"] == name).unwrap();
        let deny = &named("default-deny")["spec"];
        assert_eq!(deny["podSelector"], serde_json::json!({}), "{variant}");
        assert!(deny.get("ingress").is_none() && deny.get("egress").is_none(), "{variant}");
        assert_eq!(deny["policyTypes"], serde_json::json!(["Ingress", "Egress"]), "{variant}");
        let ingress = &named("coordinator")["spec"]["ingress"];
        let training: Vec<&Value> =
            ingress.as_array().unwrap().iter().filter(|rule| rule["ports"][0]["port"] == 7700).collect();
        assert_eq!(training.len(), 1, "{variant}");
        let from = &training[0]["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"];
        assert_eq!(from, "worker", "{variant}");
    }
}
