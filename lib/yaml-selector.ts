/**
 * Parses label selectors, as kubectl's `-l` takes them: `app=web,tier in (front, back),!legacy`.
 *
 * Grammar: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors, with the extensions
 * of k8s.io/apimachinery/pkg/labels: `==`, `>`, `<`, empty values, and `in` and `notin` as keys.
 */
import { UsageError } from "./errors.ts";

/** The labels of an object, by key. */
export type Labels = ReadonlyMap<string, string>;

/** Reports whether an object with these labels matches. */
export type Selector = (labels: Labels) => boolean;

type Operator = "=" | "!=" | "in" | "notin" | ">" | "<" | "exists" | "absent";

interface Requirement {
  readonly key: string;
  readonly operator: Operator;
  readonly values: readonly string[];
}

interface Token {
  readonly text: string;
  /** The position of the first character, from 1. */
  readonly position: number;
  readonly kind: "word" | "sign" | "end";
}

const OPERATORS: Readonly<Record<string, Operator>> = {
  "=": "=",
  "==": "=",
  "!=": "!=",
  in: "in",
  notin: "notin",
  ">": ">",
  "<": "<",
};

const TOKEN = /[ \t\r\n]*(?:(==|!=|[=!(),<>])|([^ \t\r\n=!(),<>]+))/y;

/** The maximum length of a value, and of the name in a key. */
const MAX_NAME = 63;
/** The maximum length of the prefix of a key. */
const MAX_PREFIX = 253;
const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?$/;
const PREFIX = /^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/;

const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;

/**
 * Parses a selector. All requirements between its commas must hold; an empty selector matches every object.
 *
 * @throws {UsageError} If the selector is malformed, or a key or value is not valid for a label.
 */
export function parseSelector(text: string): Selector {
  const requirements = new Parser(text).parse();
  return (labels) => requirements.every((requirement) => meets(requirement, labels));
}

function meets({ key, operator, values }: Requirement, labels: Labels): boolean {
  const value = labels.get(key);
  switch (operator) {
    case "exists":
      return value !== undefined;
    case "absent":
      return value === undefined;
    case "=":
    case "in":
      return value !== undefined && values.includes(value);
    case "!=":
    case "notin":
      return value === undefined || !values.includes(value);
    default: {
      const [left, right] = [parseInt64(value ?? ""), parseInt64(values[0] ?? "")];
      if (left === undefined || right === undefined) return false;
      return operator === ">" ? left > right : left < right;
    }
  }
}

/** Parses a decimal number as Go's strconv.ParseInt does. */
function parseInt64(text: string): bigint | undefined {
  if (!/^[+-]?[0-9]+$/.test(text)) return undefined;
  const value = BigInt(text.replace(/^\+/, ""));
  return value < INT64_MIN || value > INT64_MAX ? undefined : value;
}

class Parser {
  readonly #text: string;
  readonly #tokens: readonly Token[];
  #next = 0;

  constructor(text: string) {
    this.#text = text;
    this.#tokens = readTokens(text);
  }

  parse(): readonly Requirement[] {
    const requirements: Requirement[] = [];
    if (this.#peek().kind === "end") return requirements;
    for (;;) {
      requirements.push(this.#parseRequirement());
      const token = this.#take();
      if (token.kind === "end") return requirements;
      if (token.text !== ",") throw this.#refuse(token, "a comma or the end");
    }
  }

  #parseRequirement(): Requirement {
    const negated = this.#skip("!");
    const key = this.#take();
    if (key.kind !== "word") throw this.#refuse(key, negated ? "a key" : "a key or !");
    const why = whyBadKey(key.text);
    if (why !== undefined) throw this.#mistake(key, why);
    if (negated) return { key: key.text, operator: "absent", values: [] };
    if (this.#endsRequirement()) return { key: key.text, operator: "exists", values: [] };
    const sign = this.#take();
    const operator = Object.hasOwn(OPERATORS, sign.text) ? OPERATORS[sign.text] : undefined;
    if (operator === undefined) throw this.#refuse(sign, "one of = == != in notin > <, a comma or the end");
    const tokens = operator === "in" || operator === "notin" ? this.#parseSet() : [this.#parseValue()];
    for (const token of tokens) this.#checkValue(token, operator);
    return { key: key.text, operator, values: tokens.map((token) => token.text) };
  }

  /** Parses one value, which can be empty: `app=`. */
  #parseValue(): Token {
    if (this.#endsRequirement()) return { ...this.#peek(), text: "" };
    const token = this.#take();
    if (token.kind !== "word") throw this.#refuse(token, "a value");
    return token;
  }

  /** Parses values in parentheses, each of which can be empty: `(a,,b)`. */
  #parseSet(): readonly Token[] {
    const open = this.#take();
    if (open.text !== "(") throw this.#refuse(open, "( and values");
    const values: Token[] = [];
    for (;;) {
      const token = this.#peek();
      if (token.kind === "word") values.push(this.#take());
      else if (token.text === "," || token.text === ")") values.push({ ...token, text: "" });
      else throw this.#refuse(token, "a value or )");
      const next = this.#take();
      if (next.text === ")") return values;
      if (next.text !== ",") throw this.#refuse(next, "a comma or )");
    }
  }

  #checkValue(token: Token, operator: Operator): void {
    const { text } = token;
    if (text.length > MAX_NAME) {
      throw this.#mistake(token, `it has ${text.length} characters, wanted at most ${MAX_NAME}`);
    }
    if (text !== "" && !NAME.test(text)) {
      throw this.#mistake(
        token,
        "a value consists of letters, digits, - _ . and begins and ends with a letter or digit",
      );
    }
    if ((operator === ">" || operator === "<") && parseInt64(text) === undefined) {
      throw this.#mistake(token, `${operator} compares whole numbers`);
    }
  }

  #endsRequirement(): boolean {
    const { kind, text } = this.#peek();
    return kind === "end" || text === ",";
  }

  #peek(): Token {
    return this.#tokens[this.#next] ?? { kind: "end", text: "", position: this.#text.length + 1 };
  }

  #take(): Token {
    const token = this.#peek();
    this.#next++;
    return token;
  }

  #skip(text: string): boolean {
    if (this.#peek().text !== text) return false;
    this.#next++;
    return true;
  }

  #refuse(token: Token, wanted: string): UsageError {
    const found = token.kind === "end" ? "it ends there" : `there is "${token.text}"`;
    return this.#error(token, `${found}, wanted ${wanted}`);
  }

  #mistake(token: Token, why: string): UsageError {
    return this.#error(token, `"${token.text}": ${why}`);
  }

  #error({ position }: Token, why: string): UsageError {
    return new UsageError(`Cannot read the selector "${this.#text}" at character ${position}: ${why}`, {
      hint: 'Write a selector such as -l "app=web,tier in (front, back),!legacy".',
    });
  }
}

function readTokens(text: string): readonly Token[] {
  const tokens: Token[] = [];
  TOKEN.lastIndex = 0;
  for (let match = TOKEN.exec(text); match !== null; match = TOKEN.exec(text)) {
    const [all, sign, word] = match;
    const found = sign ?? word ?? "";
    const position = match.index + all.length - found.length + 1;
    tokens.push({ text: found, position, kind: sign === undefined ? "word" : "sign" });
  }
  return tokens;
}

function whyBadKey(key: string): string | undefined {
  const parts = key.split("/");
  const name = parts.at(-1) ?? "";
  const prefix = parts.length === 1 ? undefined : parts[0];
  if (parts.length > 2) return "a key has at most one slash";
  if (prefix !== undefined && (prefix.length > MAX_PREFIX || !PREFIX.test(prefix))) {
    return "the part of a key before the slash is a lower-case DNS name";
  }
  if (name.length > MAX_NAME) return `its name has ${name.length} characters, wanted at most ${MAX_NAME}`;
  if (NAME.test(name)) return undefined;
  return "a key consists of letters, digits, - _ . and begins and ends with a letter or digit";
}
