/**
 * How fast references in a large stream are found and replaced, and in how much memory: `bun test/bench/yaml.ts`.
 *
 * 5,000 documents of 3 MB with 1,000 references, of which 800 documents hold one or two; and the same as a `-l` run,
 * which parses every document. Each row is a process of its own, best of three; memory is that process's peak.
 */
import { readFileSync } from "node:fs";
import { filterDocuments } from "../../lib/yaml-objects.ts";
import { joinDocuments, splitDocuments, type YamlDocument } from "../../lib/yaml.ts";
import { findReferences, replaceReferences } from "../../lib/yaml-references.ts";

const DOCUMENTS = 5000;
const REFERENCES = 1000;
const IMAGE = `registry.example.com/app@sha256:${"0123456789abcdef".repeat(4)}`;

if (import.meta.main) {
  const [what] = process.argv.slice(2);
  if (what === undefined) {
    for (const row of ["split", "resolve", "select"]) {
      const { stdout, stderr, exitCode } = Bun.spawnSync([process.execPath, import.meta.path, row]);
      if (exitCode !== 0) throw new Error(stderr.toString());
      process.stdout.write(stdout);
    }
  } else await measure(what);
}

async function measure(what: string): Promise<void> {
  const bytes = new TextEncoder().encode(makeStream());
  let best = Infinity;
  let first = 0;
  let replaced = 0;
  for (let i = 0; i < 3; i++) {
    const start = Bun.nanoseconds();
    let documents = splitDocuments(bytes, "bench.yaml");
    if (what === "select") documents = await filterDocuments(documents, { selector: "app!=none" });
    if (what !== "split") documents = await replaceAll(documents);
    const text = joinDocuments(documents);
    const milliseconds = (Bun.nanoseconds() - start) / 1e6;
    if (i === 0) first = milliseconds;
    best = Math.min(best, milliseconds);
    replaced = text.split(IMAGE).length - 1;
  }
  // Not `maxRSS`: Linux lets a process begin with that of the one that started it.
  const peak = Number(/VmHWM:\s*(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))?.[1]) / 1024;
  const numbers = `first ${first.toFixed(0)} ms, best ${best.toFixed(0)} ms, ${peak.toFixed(0)} MB peak`;
  console.log(`${what.padEnd(8)} ${(bytes.byteLength / 1e6).toFixed(1)} MB, ${replaced} references: ${numbers}`);
}

async function replaceAll(documents: readonly YamlDocument[]): Promise<readonly YamlDocument[]> {
  const replaced: YamlDocument[] = [];
  for (const document of documents) {
    replaced.push(replaceReferences(document, await findReferences(document), () => IMAGE));
  }
  return replaced;
}

/** Deployments with one or two references among ConfigMaps and Services that have none. */
function makeStream(): string {
  const documents: string[] = [];
  for (let i = 0; i < DOCUMENTS; i++) {
    const head = `metadata:\n  name: object-${i} # number ${i}\n  labels: {app: "app-${i % 7}", tier: back}\n`;
    if (i % 25 < 4) {
      const image = (n: number): string =>
        `      - name: c${n}\n        image: ko://example.com/cmd/app${i}\n        env: []\n`;
      const images = i % 25 === 0 ? image(1) + image(2) : image(1);
      const filler = `    metadata:\n      annotations:\n        note: "${"some words to fill the line ".repeat(12)}"\n`;
      documents.push(
        `apiVersion: apps/v1\nkind: Deployment\n${head}spec:\n  template:\n${filler}    spec:\n      containers:\n${images}`,
      );
    } else {
      const lines = Array.from({ length: 13 }, (_, n) => `    echo "line ${n} of the script" \\\n`).join("");
      documents.push(
        `apiVersion: v1\nkind: ConfigMap\n${head}data:\n  run.sh: |\n    #!/bin/sh\n${lines}  other: 'a value'\n`,
      );
    }
  }
  const stream = documents.join("---\n");
  if (stream.split("ko://").length - 1 !== REFERENCES) throw new Error("not as many references as promised");
  return stream;
}
