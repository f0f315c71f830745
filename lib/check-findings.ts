/**
 * The findings of `ko check`: collected from errors and warnings, sorted by place, and written as lines or as JSON
 * (docs/schemas/check.v1.json).
 */
import { isAbsolute, relative } from "node:path";
import { explainError, KoError, KoErrors, printable } from "./errors.ts";
import { findPlace } from "./events-errors.ts";
import { isInside } from "./file.ts";
import { compareBytes } from "./json.ts";
import { plainStyle, type Style } from "./log-style.ts";

/** The subject of a finding. */
export type Rule =
  | "input"
  | "yaml"
  | "reference"
  | "slip"
  | "no-reference"
  | "pull-policy"
  | "command"
  | "config"
  | "unused-setting"
  | "destination"
  | "program"
  | "cgo"
  | "kodata"
  | "image-name";

/** A place in a file; only the file for a finding about all of it. */
export interface FindingPlace {
  /** Relative to the working directory if it is below it. */
  readonly file: string;
  readonly line?: number | undefined;
  readonly column?: number | undefined;
}

export interface Finding extends Partial<FindingPlace> {
  /** "error": a build, a container or a part of the configuration fails. "warning": it is probably not as it is meant. */
  readonly severity: "error" | "warning";
  readonly rule: Rule;
  readonly message: string;
  /** The next thing to do or to type. */
  readonly hint?: string | undefined;
}

export interface AddOptions {
  readonly rule: Rule;
  /** @default "error" */
  readonly severity?: Finding["severity"];
  /** @default the first place that the message names */
  readonly place?: FindingPlace | undefined;
}

/** Errors begin with a place in quotes, whose file may have blanks: `Cannot read "a b.yaml:3:4" as YAML: …`. */
const QUOTED_PLACE = /^Cannot [a-z ]+ "([^"]+?):(\d+)(?::(\d+))?"(?: as YAML)?: /;
/** Warnings begin with a place: `a b.yaml:3:4: …`. */
const LEADING_PLACE = /^([^:"]+):(\d+):(\d+): /;
/** Errors about settings: `Cannot use .ko.yaml:3:4: …`, `Cannot use ldflags of builds[0] at .ko.yaml:3:4: …`. */
const SETTING_PLACE = /^Cannot (?:use|read) (?:(\S.*?) at )?\S+:\d+(?::\d+)?: /;

export class Findings {
  readonly #cwd: string;
  readonly #all = new Map<string, Finding>();

  /** @param cwd absolute: files below it are shown relative to it */
  constructor(cwd: string) {
    this.#cwd = cwd;
  }

  /** Adds an error, or each of several. Its place leaves the message. @throws the error if no user can cause it */
  addError(error: unknown, options: AddOptions): void {
    if (error instanceof KoErrors) {
      for (const each of error.errors) this.addError(each, options);
      return;
    }
    if (!(error instanceof KoError)) throw error;
    const { message, hints } = explainError(error, this.#cwd);
    this.add(message, { ...options, hint: hints.join(" ") || undefined });
  }

  /** Adds a finding. Two equal ones are one. */
  add(text: string, options: AddOptions & { readonly hint?: string | undefined }): void {
    const { hint, rule, severity = "error" } = options;
    const found = options.place === undefined ? this.#splitPlace(text) : { place: options.place, message: text };
    const message = joinLines(found.message);
    const finding = {
      severity,
      rule,
      message,
      ...(hint === undefined ? {} : { hint: joinLines(hint) }),
      ...found.place,
    };
    this.#all.set(JSON.stringify([finding.file, finding.line, finding.column, message]), finding);
  }

  /** Runs work; a failure that a user can cause is a finding, and the result is undefined then. */
  async collect<T>(rule: Rule, work: () => Promise<T> | T): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      this.addError(error, { rule });
      return undefined;
    }
  }

  /** By file and place; those without a file come first. */
  sorted(): readonly Finding[] {
    return [...this.#all.values()].sort(
      (a, b) =>
        compareBytes(a.file ?? "", b.file ?? "") ||
        (a.line ?? 0) - (b.line ?? 0) ||
        (a.column ?? 0) - (b.column ?? 0) ||
        compareBytes(a.message, b.message),
    );
  }

  /** A path as findings show it. */
  show(path: string): string {
    return isAbsolute(path) && isInside(path, this.#cwd) ? relative(this.#cwd, path) : path;
  }

  #splitPlace(text: string): { readonly place: Partial<FindingPlace>; readonly message: string } {
    const quoted = QUOTED_PLACE.exec(text);
    if (quoted !== null) {
      const isYaml = quoted[0].endsWith(" as YAML: ") ? "it is not YAML: " : "";
      return { place: this.#placeOf(quoted), message: `${isYaml}${text.slice(quoted[0].length)}` };
    }
    const place = findPlace(text, this.#cwd);
    const setting = SETTING_PLACE.exec(text);
    if (place.file !== undefined && setting !== null) {
      const [whole, name] = setting;
      return { place, message: `${name === undefined ? "" : `${name}: `}${text.slice(whole.length)}` };
    }
    const leading = LEADING_PLACE.exec(text);
    if (leading === null) return { place, message: text };
    return { place: this.#placeOf(leading), message: text.slice(leading[0].length) };
  }

  #placeOf([, file = "", line, column]: RegExpExecArray): FindingPlace {
    return {
      file: this.show(file),
      line: Number(line),
      ...(column === undefined ? {} : { column: Number(column) }),
    };
  }
}

/** Formats findings as compilers do, one on a line: `config/web.yaml:12:16: error: …`. */
export function formatLines(findings: readonly Finding[], style: Style = plainStyle): string {
  return findings.map((finding) => `${formatFinding(finding, style)}\n`).join("");
}

/** Formats findings as a JSON document. */
export function formatJson(findings: readonly Finding[]): string {
  const counts = countFindings(findings);
  const shown = findings.map(({ severity, rule, file, line, column, message, hint }) => {
    return { severity, rule, file, line, column, message, hint };
  });
  return `${JSON.stringify({ version: 1, ...counts, findings: shown }, undefined, 2)}\n`;
}

export function countFindings(findings: readonly Finding[]): { readonly errors: number; readonly warnings: number } {
  const errors = findings.filter(({ severity }) => severity === "error").length;
  return { errors, warnings: findings.length - errors };
}

function formatFinding({ column, file, hint, line, message, severity }: Finding, style: Style): string {
  const place = [file, line, column].filter((part) => part !== undefined).join(":");
  const advice = hint === undefined ? "" : `${/[.?!]$/.test(message) ? "" : "."} ${hint}`;
  const begin = printable(place === "" ? "" : `${place}: `);
  return `${begin}${style[severity](`${severity}:`)} ${printable(`${message}${advice}`)}`;
}

/** Puts a text of several lines on one. */
function joinLines(text: string): string {
  const [first = "", ...rest] = text.split("\n").map((line) => line.trim());
  return rest.filter(Boolean).reduce((all, line) => `${all}${/[:;,.]$/.test(all) ? "" : ";"} ${line}`, first);
}
