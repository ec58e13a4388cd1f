//! Showing what is written: on a terminal while it is written, one text after another; or one JSON object a text.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::{Ended, Prompt, WritingError, Written};

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Prompt and text, with a line over each when there are several.
    Text,
    /// JSON lines.
    Json,
}

/// Where it is written. Texts come in their order, whichever is ready first; the one whose turn it is, as it is written.
pub(crate) struct Output {
    form: Form,
    out: Box<dyn Write>,
    /// Prompt and number of every text.
    jobs: Vec<(usize, u32)>,
    prompts: Vec<String>,
    /// The text whose turn it is.
    next: usize,
    /// What is to be shown of texts whose turn has not come, and whether that is all of it.
    waiting: BTreeMap<usize, (String, bool)>,
}

/// A text for programs.
#[derive(Serialize)]
struct Line<'a> {
    prompt: &'a str,
    sample: u32,
    text: &'a str,
    tokens: &'a [u32],
    log_probability: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(flatten)]
    ended: &'a Ended,
}

impl Output {
    /// For so many texts of each prompt, on standard output.
    pub(crate) fn new(form: Form, prompts: &[Prompt], samples: u32) -> Self {
        Self::to(Box::new(io::stdout().lock()), form, prompts, samples)
    }

    fn to(out: Box<dyn Write>, form: Form, prompts: &[Prompt], samples: u32) -> Self {
        let jobs = (0..prompts.len()).flat_map(|prompt| (0..samples).map(move |sample| (prompt, sample)));
        let prompts = prompts.iter().map(|prompt| prompt.text.clone()).collect();
        Self { form, out, jobs: jobs.collect(), prompts, next: 0, waiting: BTreeMap::new() }
    }

    /// Whether log-probabilities are shown.
    pub(super) fn wants_probabilities(&self) -> bool {
        self.form == Form::Json
    }

    /// A piece of the prompt, as it was read.
    pub(super) fn prompt(&mut self, job: usize, piece: &str) -> Result<(), WritingError> {
        self.piece(job, piece)
    }

    /// A piece of the text.
    pub(super) fn piece(&mut self, job: usize, piece: &str) -> Result<(), WritingError> {
        match self.form {
            Form::Text => self.show(job, piece, false),
            Form::Json => Ok(()),
        }
    }

    /// The text is complete.
    pub(super) fn ended(&mut self, job: usize, written: Written) -> Result<(), WritingError> {
        let last = match self.form {
            Form::Text => "\n".to_owned(),
            Form::Json => self.line(job, &written)?,
        };
        self.show(job, &last, true)
    }

    pub(super) fn finish(mut self) -> Result<(), WritingError> {
        Ok(self.out.flush()?)
    }

    fn line(&self, job: usize, written: &Written) -> Result<String, WritingError> {
        let (prompt, sample) = self.jobs[job];
        let Written { text, tokens, log_probability, score, ended } = written;
        let (prompt, score, log_probability) = (&self.prompts[prompt], *score, *log_probability);
        let line = Line { prompt, sample, text, tokens, log_probability, score, ended };
        Ok(serde_json::to_string(&line)? + "\n")
    }

    fn show(&mut self, job: usize, text: &str, ends: bool) -> Result<(), WritingError> {
        let (waiting, ended) =
            self.waiting.entry(job).or_insert_with(|| (heading(self.form, &self.jobs, job), false));
        waiting.push_str(text);
        *ended |= ends;
        while let Some((waiting, ended)) = self.waiting.get_mut(&self.next) {
            self.out.write_all(waiting.as_bytes())?;
            waiting.clear();
            if !*ended {
                break;
            }
            self.waiting.remove(&self.next);
            self.next += 1;
        }
        Ok(self.out.flush()?)
    }
}

fn heading(form: Form, jobs: &[(usize, u32)], job: usize) -> String {
    let (prompt, sample) = jobs[job];
    let many_prompts = jobs.last().is_some_and(|(last, _)| *last > 0);
    match form {
        Form::Json => String::new(),
        Form::Text if jobs.len() == 1 => String::new(),
        Form::Text if many_prompts => format!("=== prompt {}, sample {} ===\n", prompt + 1, sample + 1),
        Form::Text => format!("=== sample {} ===\n", sample + 1),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(text: &str) -> Written {
        let (text, tokens) = (text.to_owned(), vec![3, 4]);
        Written { text, tokens, log_probability: -1.5, score: None, ended: Ended::Stop("\n".into()) }
    }

    fn output(form: Form, prompts: &[&str], samples: u32) -> (Output, impl Fn() -> String) {
        let shared = Shared::default();
        let prompt = |text: &&str| Prompt { text: (*text).to_owned(), tokens: vec![1] };
        let prompts: Vec<Prompt> = prompts.iter().map(prompt).collect();
        let output = Output::to(Box::new(shared.clone()), form, &prompts, samples);
        (output, move || String::from_utf8(shared.0.borrow().clone()).unwrap())
    }

    #[test]
    fn one_text_is_shown_as_it_is_written_and_others_wait_for_their_turn() {
        let (mut output, shown) = output(Form::Text, &["a"], 3);
        output.piece(1, "late").unwrap();
        assert_eq!(shown(), "");
        output.piece(0, "ear").unwrap();
        assert_eq!(shown(), "=== sample 1 ===\near");
        output.ended(1, written("late")).unwrap();
        output.piece(2, "la").unwrap();
        output.piece(0, "ly").unwrap();
        output.ended(0, written("early")).unwrap();
        assert_eq!(shown(), "=== sample 1 ===\nearly\n=== sample 2 ===\nlate\n=== sample 3 ===\nla");
    }

    #[test]
    fn a_json_line_holds_prompt_text_tokens_and_why_it_ended() {
        let (mut output, shown) = output(Form::Json, &["a", "b"], 1);
        output.piece(0, "not shown").unwrap();
        output.ended(1, written("second")).unwrap();
        output.ended(0, written("first")).unwrap();
        let first = r#"{"prompt":"a","sample":0,"text":"first","tokens":[3,4],"log_probability":-1.5,"ended":"stop","stop":"\n"}"#;
        let lines: Vec<String> = shown().lines().map(str::to_owned).collect();
        assert_eq!(lines[0], first);
        assert!(lines[1].starts_with(r#"{"prompt":"b","sample":0,"text":"second""#), "{}", lines[1]);
        assert_eq!(lines.len(), 2);
    }
}
