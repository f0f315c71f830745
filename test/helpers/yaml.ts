/**
 * YAML streams as values, read by the `yaml` package with nothing of lib/ in between; and random YAML of all styles together
 * with the expected output, which the generator writes piece by piece and does not derive from the input.
 */
import { parseAllDocuments } from "yaml";

/**
 * The values of all documents that hold more than nothing, in order. The `repository` that images are pushed to is
 * written `REPO` and digests `DIGEST`, so that what was pushed to two places, with two digests, compares as equal.
 *
 * @throws {Error} If the text is no YAML.
 */
export function readDocuments(text: string, repository: string): readonly unknown[] {
  const named = text.replaceAll(repository, "REPO").replaceAll(/@sha256:[0-9a-f]{64}/g, "@DIGEST");
  const documents = parseAllDocuments(named, { uniqueKeys: false, merge: true, logLevel: "error" });
  if (!Array.isArray(documents)) return [];
  return documents.flatMap((document) => {
    for (const error of document.errors) throw error;
    const value: unknown = document.toJS();
    return value === null || value === undefined ? [] : [value];
  });
}

/**
 * Random YAML of all styles together with what ko has to make of it: the expected bytes are written by the generator,
 * piece by piece, not derived from the input.
 */
export interface GeneratedYaml {
  readonly input: string;
  /** The input with every reference replaced, blanks and line ends behind references gone. */
  readonly output: string;
  /** How many references the input has. */
  readonly references: number;
}

/** What `ko://example.com/app7` becomes. */
export function resolved(reference: string): string {
  return `${reference.replace("ko://example.com", "reg.test/x")}@sha256:0123456789abcdef`;
}

export interface GenerateYamlOptions {
  /** Leave out what go.yaml.in/yaml does not read: `\/` in quotes, tabs behind a dash or a colon. @default false */
  readonly forGo?: boolean;
}

/** One stream of one to four documents; the same for the same seed. */
export function generateYaml(seed: number, { forGo = false }: GenerateYamlOptions = {}): GeneratedYaml {
  return new Generator(seed, forGo).stream();
}

class Generator {
  readonly #input: string[] = [];
  readonly #output: string[] = [];
  readonly #eol: string;
  readonly #forGo: boolean;
  #state: number;
  #references = 0;
  #names = 0;
  #anchors: string[] = [];

  constructor(seed: number, forGo: boolean) {
    this.#forGo = forGo;
    this.#state = seed * 2654435761;
    this.#eol = this.#chance(4) ? "\r\n" : "\n";
  }

  stream(): GeneratedYaml {
    if (this.#chance(8)) this.#emit("\uFEFF");
    if (this.#chance(5)) this.#emit(`# ko://example.com/header${this.#eol}---${this.#eol}`);
    const documents = 1 + this.#below(4);
    for (let i = 0; i < documents; i++) {
      if (i > 0) this.#emit(`---${this.#pick(["", " ", " # ko://example.com/marker", "\t"])}${this.#eol}`);
      this.#anchors = [];
      if (this.#chance(2)) this.#map(0, 0);
      else this.#sequence(0, 0);
      if (i < documents - 1 && this.#chance(5)) this.#emit(`...${this.#eol}`);
    }
    return { input: this.#input.join(""), output: this.#output.join(""), references: this.#references };
  }

  /** A number from 0 to n - 1 (mulberry32). */
  #below(n: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % n;
  }

  #chance(oneIn: number): boolean {
    return this.#below(oneIn) === 0;
  }

  #pick(choices: readonly string[]): string {
    return choices[this.#below(choices.length)] ?? "";
  }

  #emit(input: string, output: string = input): void {
    this.#input.push(input);
    this.#output.push(output);
  }

  #line(text: string): void {
    this.#emit(`${text}${this.#eol}`);
  }

  #map(indent: number, depth: number): void {
    const pairs = 1 + this.#below(4);
    for (let i = 0; i < pairs; i++) {
      this.#noise(indent);
      this.#emit(" ".repeat(indent));
      this.#key();
      this.#emit(":");
      this.#value(indent, depth);
    }
  }

  #sequence(indent: number, depth: number): void {
    const items = 1 + this.#below(4);
    for (let i = 0; i < items; i++) {
      this.#noise(indent);
      this.#emit(`${" ".repeat(indent)}-`);
      this.#value(indent, depth);
    }
  }

  #noise(indent: number): void {
    if (this.#chance(6)) this.#line("");
    if (this.#chance(6)) this.#line(`${" ".repeat(indent)}# image: ko://example.com/comment 😀`);
  }

  /** What stands behind `:` or `-`, to the end of its last line. */
  #value(indent: number, depth: number): void {
    const anchor = this.#chance(8) ? `a${this.#names++}` : undefined;
    const tag = this.#chance(8) ? this.#pick([" !custom", " !<tag:example.com,2026:x>"]) : "";
    this.#anchored(indent, { depth, props: anchor === undefined ? tag : `${tag} &${anchor}` });
    // Not before: an alias within its own anchor's value would be a loop.
    if (anchor !== undefined) this.#anchors.push(anchor);
  }

  #anchored(indent: number, options: { readonly depth: number; readonly props: string }): void {
    const { depth, props } = options;
    const inner = indent + 1 + this.#below(4);
    switch (this.#below(depth > 4 ? 4 : 7)) {
      case 0:
        return this.#block(props, inner);
      case 1:
        this.#emit(`${props} `);
        this.#flow(inner, 0);
        return this.#endLine();
      case 2:
      case 3:
        if (props === "" && this.#anchors.length > 0 && this.#chance(4)) this.#emit(` *${this.#pick(this.#anchors)}`);
        else {
          this.#emit(`${props}${this.#chance(5) ? `${this.#eol}${" ".repeat(inner)}` : " "}`);
          this.#scalar("block");
        }
        return this.#endLine();
      case 4:
      case 5:
        this.#emit(props);
        this.#endLine();
        return this.#map(inner, depth + 1);
      default:
        this.#emit(props);
        this.#endLine();
        return this.#sequence(inner, depth + 1);
    }
  }

  #endLine(): void {
    this.#line(this.#pick(["", "", " ", this.#forGo ? "" : "\t", " # ko://example.com/behind", "  # x: 'y"]));
  }

  #reference(): string {
    this.#references++;
    return `ko://example.com/app${this.#names++}`;
  }

  #key(): void {
    const name = `key${this.#names++}`;
    if (this.#chance(8)) return this.#referenceScalar("block");
    this.#emit(this.#pick([name, `'${name}'`, `"${name}"`, `"\\u006b${name}"`, `${name} with ko://inside`]));
  }

  #scalar(context: "block" | "flow"): void {
    if (this.#chance(2)) return this.#referenceScalar(context);
    this.#emit(
      this.#pick([
        "text",
        "12",
        "true",
        "~",
        "image=ko://example.com/app",
        "http://example.com/x#y",
        "'it''s ko://x'",
        '"a \\"quoted\\" 🚀 \\u00e4"',
        '"\\\\u006bo://example.com/app"',
        "ünïcödé 🎉 text",
        "-x",
        '"#"',
        '" ko://example.com/app"',
        '"\\nko://example.com/app"',
      ]),
    );
  }

  #referenceScalar(context: "block" | "flow"): void {
    const reference = this.#reference();
    const output = resolved(reference);
    const rest = reference.slice(2);
    switch (this.#below(context === "flow" ? 6 : 5)) {
      case 0:
        return this.#emit(`'${reference}'`, `'${output}'`);
      case 1:
        return this.#emit(`"${reference}"`, `"${output}"`);
      case 2:
        return this.#emit(
          `"${this.#pick(["\\u006b", "\\x6B", "k"])}${this.#pick(["o", "\\u006F"])}${rest.replace("/", this.#pick([this.#forGo ? "/" : "\\/", "\\x2f", "/"]))}"`,
          `"${output}"`,
        );
      case 3:
        return this.#emit(
          this.#pick([`"${reference} "`, `"${reference}\\t"`, `"${reference}\\u00a0\\n"`]),
          `"${output}"`,
        );
      default:
        return this.#emit(reference, output);
    }
  }

  #block(props: string, indent: number): void {
    const style = this.#pick(["|", ">"]);
    const chomping = this.#pick(["", "-", "+"]);
    const comment = this.#pick(["", "", " # ko://example.com/header"]);
    const blanks = this.#pick(["", this.#eol, `${this.#eol}${this.#eol}`]);
    const margin = " ".repeat(indent);
    if (this.#chance(3)) {
      const body = this.#pick(["text", "#!/bin/sh", "image: ko://example.com/app", "see\n\nko://example.com/app"]);
      const lines = body.split("\n").map((line) => (line === "" ? "" : `${margin}${line}`));
      return this.#emit(
        `${props} ${style}${chomping}${comment}${this.#eol}${lines.join(this.#eol)}${this.#eol}${blanks}`,
      );
    }
    const reference = this.#reference();
    const end = this.#eol + blanks;
    this.#emit(
      `${props} ${style}${chomping}${comment}${this.#eol}${margin}${reference}${end}`,
      `${props} ${style}-${comment}${this.#eol}${margin}${resolved(reference)}${end}`,
    );
  }

  #flow(indent: number, depth: number): void {
    const [open, close] = this.#chance(2) ? ["[", "]"] : ["{", "}"];
    const many = this.#chance(3);
    const gap = (): string =>
      many ? `${this.#pick(["", " # ko://example.com/flow"])}${this.#eol}${" ".repeat(indent)}` : this.#pick(["", " "]);
    this.#emit(open);
    const items = this.#below(4);
    for (let i = 0; i < items; i++) {
      this.#emit(i === 0 ? gap() : `,${gap()}`);
      if (open === "{") {
        this.#key();
        this.#emit(": ");
      }
      if (depth < 3 && this.#chance(4)) this.#flow(indent + 1, depth + 1);
      else this.#scalar("flow");
    }
    if (items > 0 && this.#chance(5)) this.#emit(",");
    this.#emit(`${gap()}${close}`);
  }
}
