/**
 * A run as GitHub Actions shows it: annotations at places in files, the outputs of the step, and its summary.
 *
 * https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
 */
import { appendFile, stat } from "node:fs/promises";
import { isAbsolute, relative, resolve } from "node:path";
import { KoError } from "./errors.ts";
import type { Metadata, ProgramRecord } from "./events-metadata.ts";
import type { ErrorEvent, Event, ResultImage } from "./events.ts";
import { isInside } from "./file.ts";
import type { Host } from "./host.ts";
import { formatSize } from "./log.ts";

type Place = Pick<Host, "cwd" | "env" | "platform">;

/** The runner refuses the whole summary of a step if it is larger. Bytes. */
const MAX_SUMMARY = 1024 * 1024;
/** Left free for the last lines of the summary. Bytes. */
const RESERVE = 4096;
/** Of the errors of one run in the summary. Characters. */
const MAX_ERRORS = 64 * 1024;

/** An error or a warning that names a place: an event, or a finding of `ko check`. */
export interface Annotated {
  readonly type: Event["type"];
  readonly message?: string;
  readonly hint?: string | undefined;
  readonly file?: string | undefined;
  readonly line?: number | undefined;
  readonly column?: number | undefined;
}

/** Returns the command that shows an error or a warning at its place; undefined for one without a place. */
export function formatAnnotation(annotated: Annotated, place: Place): string | undefined {
  const { column, file, line, message = "", type } = annotated;
  if ((type !== "error" && type !== "warning") || file === undefined) return undefined;
  const hint = annotated.hint === undefined ? "" : `\n${annotated.hint}`;
  const properties = {
    file: fromWorkspace(file, place),
    line,
    // Columns begin with 1; go writes 0 for a whole line.
    col: column === 0 ? undefined : column,
  };
  const shown = Object.entries(properties).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${escapeProperty(String(value))}`],
  );
  return `::${type} ${shown.join(",")}::${escapeData(`${message}${hint}`)}`;
}

/**
 * Appends the outputs `image`, `digest` and `images` to the file of the step's outputs.
 *
 * @throws {KoError} If the file cannot be written.
 */
export async function appendOutputs(
  programs: readonly Pick<ProgramRecord, "result">[],
  { cwd, env }: Place,
): Promise<void> {
  await append(resolve(cwd, env["GITHUB_OUTPUT"] ?? ""), formatOutputs(programs), "GITHUB_OUTPUT");
}

/** Returns the outputs of a step, each between delimiters that no value can hold. */
export function formatOutputs(programs: readonly Pick<ProgramRecord, "result">[]): string {
  const results = programs.flatMap(({ result }) => result ?? []);
  const [first] = results;
  const outputs = {
    image: first?.reference ?? "",
    digest: first?.descriptor.digest ?? "",
    images: JSON.stringify(results.map(({ reference }) => reference)),
  };
  return Object.entries(outputs)
    .map(([name, value]) => {
      const delimiter = `ko_${crypto.randomUUID()}`;
      return `${name}<<${delimiter}\n${value}\n${delimiter}\n`;
    })
    .join("");
}

/**
 * Appends a table of the programs, and the errors, to the summary of the step, if there is one.
 *
 * @throws {KoError} If the file cannot be written.
 */
export async function appendSummary(
  metadata: Pick<Metadata, "errors" | "programs">,
  { command, host }: { readonly command: string; readonly host: Place },
): Promise<void> {
  const file = host.env["GITHUB_STEP_SUMMARY"];
  if (!file) return;
  const path = resolve(host.cwd, file);
  const found = await stat(path).catch(() => undefined);
  const room = MAX_SUMMARY - (found?.size ?? 0);
  await append(path, formatSummary(metadata, { command, room }), "GITHUB_STEP_SUMMARY");
}

/** @param options.room the most bytes of the result; the programs that do not fit are counted */
export function formatSummary(
  { errors, programs }: Pick<Metadata, "errors" | "programs">,
  { command, room }: { readonly command: string; readonly room: number },
): string {
  const head = `### ko ${command}\n\n`;
  const errorText = formatErrors(errors);
  const lines = [head];
  let left = room - RESERVE - Buffer.byteLength(head) - Buffer.byteLength(errorText);
  if (left < 0) return "";
  if (programs.length > 0) lines.push(TABLE_HEAD);
  let shown = 0;
  for (const program of programs) {
    const row = formatRow(program);
    left -= Buffer.byteLength(row);
    if (left < 0) break;
    lines.push(row);
    shown += 1;
  }
  if (shown < programs.length) lines.push(`\nand ${programs.length - shown} more\n`);
  if (programs.length === 0 && errors.length === 0) lines.push("There was nothing to build.\n");
  return `${lines.join("")}${errorText}\n`;
}

const TABLE_HEAD = `| program | image | digest | size | built | seconds |
| :------ | :---- | :----- | ---: | :---- | ------: |
`;

function formatRow({ program, result, took }: ProgramRecord): string {
  const { importPath, image } = program;
  const cells =
    result === undefined
      ? [code(importPath), code(image), "", "", "not published", ""]
      : [
          code(importPath),
          code(result.reference.replace(/@sha256:.*$/, "")),
          code(result.descriptor.digest),
          perPlatform(result.images, ({ layers }) => formatSize(layers.reduce((sum, { size }) => sum + size, 0))),
          perPlatform(result.images, (found) => describeWhy(found, result.wasThere)),
          (took / 1000).toFixed(1),
        ];
  return `| ${cells.join(" | ")} |\n`;
}

/** One text, or a line for each platform if there are several. */
function perPlatform(images: readonly ResultImage[], show: (image: ResultImage) => string): string {
  const [only, another] = images;
  if (only !== undefined && another === undefined) return escapeMarkdown(show(only));
  return images.map((image) => escapeMarkdown(`${image.platform}: ${show(image)}`)).join("<br>");
}

function describeWhy({ why }: ResultImage, wasThere: boolean): string {
  if (why !== undefined) return why.file === undefined ? why.reason : `${why.file} ${why.reason}`;
  return wasThere ? "unchanged" : "reused";
}

function formatErrors(errors: readonly ErrorEvent[]): string {
  if (errors.length === 0) return "";
  const lines = errors.flatMap(({ column, details = "", file, hint = "", line, message }) => {
    const place = file === undefined ? "" : `${[file, line, column].filter((part) => part !== undefined).join(":")}: `;
    const prefix = message.includes(`${file ?? ""}:`) ? "" : place;
    return [`${prefix}${message}`, details, hint].filter((part) => part !== "");
  });
  const all = lines.join("\n");
  const text = all.length > MAX_ERRORS ? `${all.slice(0, MAX_ERRORS)}…` : all;
  const longest = Math.max(2, ...Array.from(text.matchAll(/`+/g), ([ticks]) => ticks.length));
  const fence = "`".repeat(longest + 1);
  return `\n${fence}text\n${text}\n${fence}\n`;
}

/** Code in a cell of a table. Backticks cannot quote each other there, so the text is HTML. */
function code(text: string): string {
  return text === "" ? "" : `<code>${escapeMarkdown(text)}</code>`;
}

/** Writes the characters that Markdown, HTML or a table takes for its own as entities. */
function escapeMarkdown(text: string): string {
  return text.replaceAll(/\s+/g, " ").replace(/[\\`*_{}[\]<>()#|&~$"'!^=]/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** The runner wants paths from the root of the repository, with slashes. */
function fromWorkspace(file: string, { cwd, env, platform }: Place): string {
  const workspace = env["GITHUB_WORKSPACE"] ?? "";
  const path = resolve(cwd, file);
  const near = isAbsolute(workspace) && isInside(path, workspace) ? relative(workspace, path) : file;
  return platform === "win32" ? near.replaceAll("\\", "/") : near;
}

function escapeData(text: string): string {
  return text.replaceAll("%", "%25").replaceAll("\r", "%0D").replaceAll("\n", "%0A");
}

function escapeProperty(text: string): string {
  return escapeData(text).replaceAll(":", "%3A").replaceAll(",", "%2C");
}

async function append(path: string, text: string, name: string): Promise<void> {
  try {
    await appendFile(path, text);
  } catch (cause) {
    throw new KoError(`Cannot write ${name} "${path}"`, { cause });
  }
}
