/**
 * Where the documents of a round go: to stdout as one endless stream, or into a kubectl of their own.
 */
import type { FlagValues } from "./cli-flags.ts";
import { KoError } from "./errors.ts";
import type { Host } from "./host.ts";
import { findKubectl, type KUBECTL_FLAGS, kubectlArguments, runKubectl } from "./kubectl.ts";
import type { Log } from "./log.ts";
import type { Round } from "./watch.ts";
import { joinDocuments, type YamlDocument } from "./yaml.ts";

export type HandOver = (documents: readonly YamlDocument[], round: Round) => Promise<void>;

export interface FeederOptions {
  readonly command: "apply" | "create";
  readonly flags: FlagValues<typeof KUBECTL_FLAGS>;
  readonly given: ReadonlySet<string>;
  readonly afterDashes: readonly string[];
  readonly log: Log;
}

/**
 * Prints the documents of each round with a `---` line behind them, so that whoever reads the stream knows that they are
 * complete: all that was printed is one YAML stream at any time.
 */
export function createPrinter(): HandOver {
  let isFirst = true;
  return async (documents, { patientHost }) => {
    const text = formatRound(documents, isFirst);
    isFirst = false;
    await patientHost.out(text);
  };
}

/** The text of one round: it follows on a `---` line, unless it is the first. */
export function formatRound(documents: readonly YamlDocument[], isFirst: boolean): string {
  const joined = joinDocuments(documents);
  const [first] = documents;
  const complete = `${joined}${joined.endsWith("\n") ? "" : "\n"}---\n`;
  if (isFirst || first === undefined) return complete;
  // Directives have to follow the end of a document.
  if (first.directives) return `...\n${complete}`;
  // One line of dashes is there already.
  return first.marker === 0 ? complete.replace(/^---[ \t]*\r?\n/, "") : complete;
}

/**
 * Runs one kubectl for each round. It is let finish; what it says is shown as it says it, but when it is tried again only if
 * it says something new.
 *
 * @throws {KoError} If there is no kubectl.
 */
export function createFeeder(host: Host, options: FeederOptions): HandOver {
  findKubectl(host);
  const { afterDashes, command, flags, given, log } = options;
  const args = [command, "-f", "-", ...kubectlArguments(flags, given), ...afterDashes];
  let lastSaid = "";
  return async (documents, { isRetry, mayPass, patientHost, timing }) => {
    // To create again what was created in part would fail again.
    mayPass(command === "apply");
    const stdin = new TextEncoder().encode(joinDocuments(documents));
    const held: (string | Uint8Array)[] = [];
    let said = "";
    const run = (): Promise<number> =>
      runKubectl(patientHost, args, {
        log,
        stdin,
        onOutput: (chunk) => (isRetry ? held.push(chunk) : patientHost.out(chunk)),
        onError: (text) => {
          said += text;
          if (isRetry) held.push(text);
          else patientHost.err(text);
        },
      });
    let code: number | undefined;
    try {
      code = await timing.time("kubectl", command, run);
    } finally {
      if (code === 0 || said !== lastSaid) {
        for (const each of held) {
          if (typeof each === "string") patientHost.err(each);
          else await patientHost.out(each);
        }
      }
      lastSaid = said;
    }
    if (code !== 0) throw new KoError(`kubectl ${command} failed with exit code ${code}`);
  };
}
