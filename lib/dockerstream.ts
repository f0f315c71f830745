/**
 * What a daemon says of a load: a stream of JSON lines in which a failure looks like a success until one reads them
 * (wire.md C2.2-C2.4).
 */
import { printable } from "./errors.ts";
import { isObject } from "./gojson.ts";
import { DOCKER_HUB, formatReference, parseReference } from "./reference.ts";

/** A line, longer ones are cut. */
const MAX_LINE_CHARS = 1024 * 1024;

/** Lines of JSON; the last may have no end. */
export async function* linesOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string, void, void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of chunks) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = (lines.pop() ?? "").slice(0, MAX_LINE_CHARS);
    yield* lines;
  }
  yield rest + decoder.decode();
}

/** What a line of a load's answer says: a text for people, an error, or nothing of interest (progress). */
export function readLoadLine(line: string): { readonly text?: string; readonly error?: string } {
  const trimmed = line.trim();
  if (trimmed === "") return {};
  let value: unknown;
  try {
    value = JSON.parse(trimmed);
  } catch {
    return { text: printable(trimmed, 400) };
  }
  if (!isObject(value)) return { text: printable(trimmed, 400) };
  const { error, errorDetail: detail, stream } = value;
  const message = isObject(detail) ? detail["message"] : undefined;
  if (error !== undefined || detail !== undefined) {
    const words = [message, error].find((word) => typeof word === "string" && word !== "");
    return { error: typeof words === "string" ? words : "an error without words" };
  }
  if (typeof stream !== "string") return {};
  const text = printable(stream.trim(), 1000);
  // Engines with the containerd store report a failed unpacking only so, after "Loaded image".
  return text.startsWith("Error unpacking image") ? { text, error: text } : { text };
}

/** Whether `text` is `Loaded image: NAME` for our name; Docker Hub's names are shortened, podman lists several. */
export function isLoadedLine(text: string, expect: string): boolean {
  const names = /^Loaded image(?:\(s\))?: (.*)$/s.exec(text)?.[1]?.split(",") ?? [];
  return names.some((name) => normalName(name.trim()) === normalName(expect));
}

function normalName(name: string): string | undefined {
  try {
    const reference = parseReference(name);
    return formatReference(reference.host === DOCKER_HUB ? { ...reference, host: "docker.io" } : reference);
  } catch {
    return undefined;
  }
}
