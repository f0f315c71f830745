/**
 * The worker of yaml-exact.ts: it does one {@link ExactJob}, and answers with an {@link ExactAnswer}.
 *
 * Its first message is `"ready"`.
 */
import { KoError } from "./errors.ts";
import type { ExactAnswer, ExactJob } from "./yaml-exact.ts";
import { readImages } from "./yaml-images.ts";
import { nameObjects, selectIn } from "./yaml-objects.ts";
import { findInYaml } from "./yaml-references.ts";
import { parseSelector } from "./yaml-selector.ts";
import { loadYaml } from "./yaml.ts";

declare const self: Worker;

// Before anything asynchronous: Bun drops messages that come before there is a handler (docs/rules.md, Bun 3).
self.addEventListener("message", ({ data }: MessageEvent<ExactJob>) => {
  void answer(data).then((done) => self.postMessage(done, []));
});
self.postMessage("ready", []);

async function answer(job: ExactJob): Promise<ExactAnswer> {
  try {
    return { value: await perform(job) };
  } catch (error) {
    if (!(error instanceof KoError)) throw error;
    return { message: error.message, hint: error.hint };
  }
}

async function perform({ task, document, selector = "" }: ExactJob): Promise<unknown> {
  const yaml = await loadYaml();
  switch (task) {
    case "references":
      return findInYaml(document, yaml);
    case "images":
      return readImages(document, yaml);
    case "objects":
      return nameObjects(document, yaml);
    case "select":
      return selectIn(document, { yaml, selector: parseSelector(selector) });
  }
}
