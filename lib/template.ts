/**
 * Renders templates as Go's text/template does with `missingkey=error`, within limits of time and size.
 *
 * Parsing is template-parse.ts's job. Rules: https://pkg.go.dev/text/template, text/template/exec.go and funcs.go.
 */
import { RecordedData, type ReadValue, type TemplateData, wholeMap } from "./template-data.ts";
import {
  decodeText,
  encodeText,
  type GoMap,
  print,
  printf,
  println,
  TemplateProblem,
  typeOf,
  type Value,
} from "./template-format.ts";
import { renderError } from "./template-lex.ts";
import type { Branch, Node, Operand, Pipe, Template } from "./template-parse.ts";

export interface Rendered {
  readonly text: string;
  /** The data that decided the text, sorted by name. */
  readonly reads: readonly ReadValue[];
}

/** Linux refuses longer arguments of a program. */
const MAX_OUTPUT = 128 * 1024;
/** A step is a part of the template that runs, or 64 bytes that a function reads or writes. */
const MAX_STEPS = 1_000_000;
const BYTES_PER_STEP = 64;

interface Variable {
  readonly name: string;
  value: Value;
}

interface GoFunction {
  readonly min: number;
  /** @default no limit */
  readonly max?: number;
  readonly run: (values: readonly Value[]) => Value;
}

const FUNCTIONS: ReadonlyMap<string, GoFunction> = new Map<string, GoFunction>([
  ["not", { min: 1, max: 1, run: ([value]) => !isTrue(value) }],
  ["len", { min: 1, max: 1, run: ([value]) => length(value) }],
  ["index", { min: 1, run: ([value, ...keys]) => index(value, keys) }],
  ["slice", { min: 1, max: 4, run: ([value, ...keys]) => slice(value, keys) }],
  ["print", { min: 0, run: (values) => print(checkPrintable(values)) }],
  ["println", { min: 0, run: (values) => println(checkPrintable(values)) }],
  ["printf", { min: 1, run: ([format, ...values]) => printf(checkText(format), checkPrintable(values)) }],
  ["eq", { min: 2, run: ([value, ...others]) => others.some((other) => isEqual(value, other)) }],
  ["ne", { min: 2, max: 2, run: ([a, b]) => !isEqual(a, b) }],
  ["lt", { min: 2, max: 2, run: ([a, b]) => isLess(a, b) }],
  ["le", { min: 2, max: 2, run: ([a, b]) => isLess(a, b) || isEqual(a, b) }],
  ["gt", { min: 2, max: 2, run: ([a, b]) => !isLess(a, b) && !isEqual(a, b) }],
  ["ge", { min: 2, max: 2, run: ([a, b]) => !isLess(a, b) }],
]);

/**
 * Renders a template.
 *
 * @param data at least everything in the template's `reads`
 * @throws {KoError} If a value is missing or has the wrong type, the result is not UTF-8 or has a NUL, or the template
 * takes too many steps. The message has file, line and column, and no value.
 */
export function render(template: Template, data: TemplateData): Rendered {
  const recorded = new RecordedData(data);
  const renderer = new Renderer(template, recorded.root);
  return { text: renderer.run(), reads: recorded.reads() };
}

class Renderer {
  readonly #template: Template;
  readonly #root: GoMap;
  readonly #variables: Variable[];
  #steps = 0;
  #output = "";

  constructor(template: Template, root: GoMap) {
    this.#template = template;
    this.#root = root;
    this.#variables = [{ name: "$", value: root }];
  }

  run(): string {
    this.#walk(this.#template.nodes, this.#root);
    return this.#at(0, () => {
      if (this.#output.includes("\0")) throw new TemplateProblem("the result has a NUL, which no argument can have");
      return decodeText(this.#output);
    });
  }

  /** Renders nodes. Returns the kind of the node that ended them early. */
  #walk(nodes: readonly Node[], dot: Value): "break" | "continue" | undefined {
    for (const node of nodes) {
      switch (node.kind) {
        case "text":
          this.#write(node.text, 0);
          break;
        case "action":
          this.#writeAction(node.pipe, dot);
          break;
        case "break":
        case "continue":
          return node.kind;
        default: {
          const mark = this.#variables.length;
          const end = node.kind === "range" ? this.#range(node, dot) : this.#branch(node, dot);
          this.#variables.length = mark;
          if (end !== undefined) return end;
        }
      }
    }
    return undefined;
  }

  #writeAction(pipe: Pipe, dot: Value): void {
    const value = this.#pipe(pipe, dot);
    if (pipe.variables.length > 0) return;
    const text = this.#at(pipe.offset, () => {
      if (isMap(value)) throw wholeMap(value.name);
      return value === undefined ? "<no value>" : print([value]);
    });
    this.#write(text, pipe.offset);
  }

  #branch({ kind, pipe, body, otherwise }: Branch, dot: Value): "break" | "continue" | undefined {
    const value = this.#pipe(pipe, dot);
    if (isTrue(value)) return this.#walk(body, kind === "with" ? value : dot);
    return this.#walk(otherwise, dot);
  }

  #range({ pipe, body, otherwise }: Branch, dot: Value): "break" | "continue" | undefined {
    const over = this.#pipe(pipe, dot);
    const mark = this.#variables.length;
    let isEmpty = true;
    this.#step(pipe.offset, costOf([over]));
    for (const [key, element] of this.#at(pipe.offset, () => elements(over, pipe.variables.length))) {
      isEmpty = false;
      this.#step(pipe.offset, 1);
      const values = pipe.variables.length > 1 ? [key, element] : [element];
      for (const [i, name] of pipe.variables.entries()) {
        const place = pipe.isAssignment
          ? this.#find(name, pipe.offset)
          : this.#variables[mark - pipe.variables.length + i];
        if (place !== undefined) place.value = values[i];
      }
      const end = this.#walk(body, element);
      this.#variables.length = mark;
      if (end === "break") break;
    }
    const end = isEmpty ? this.#walk(otherwise, dot) : undefined;
    // As in Go, {{break}} in the {{else}} ends this range, though {{continue}} there belongs to the outer one.
    return end === "break" ? undefined : end;
  }

  #pipe(pipe: Pipe, dot: Value): Value {
    let piped: readonly [Value] | readonly [] = [];
    for (const command of pipe.commands) piped = [this.#command(command, { dot, piped })];
    const [value] = piped;
    for (const name of pipe.variables) {
      const variable = pipe.isAssignment ? this.#find(name, pipe.offset) : undefined;
      if (variable === undefined) this.#variables.push({ name, value });
      else variable.value = value;
    }
    return value;
  }

  /** @param options.piped the result of the command before */
  #command(
    [first, ...rest]: readonly [Operand, ...Operand[]],
    { dot, piped }: { readonly dot: Value; readonly piped: readonly Value[] },
  ): Value {
    this.#step(first.offset, 1);
    if (first.kind === "function") return this.#call(first, { operands: rest, dot, piped });
    if (rest.length + piped.length > 0) throw this.#error(first, "only a function takes values");
    if (first.kind === "nil") throw this.#error(first, "nil is not an action");
    return this.#operand(first, dot);
  }

  #operand(operand: Operand, dot: Value): Value {
    switch (operand.kind) {
      case "constant":
        return operand.value;
      case "dot":
        return dot;
      case "nil":
        return undefined;
      case "variable":
        return this.#find(operand.name, operand.offset).value;
      case "pipe":
        return this.#pipe(operand.pipe, dot);
      case "function":
        return this.#call(operand, { operands: [], dot, piped: [] });
      case "field": {
        this.#step(operand.offset, 1);
        const of = this.#operand(operand.of, dot);
        return this.#at(operand.offset, () => readField(of, operand.name));
      }
    }
  }

  #call(
    { name, offset }: { readonly name: string; readonly offset: number },
    {
      operands,
      dot,
      piped,
    }: { readonly operands: readonly Operand[]; readonly dot: Value; readonly piped: readonly Value[] },
  ): Value {
    const count = operands.length + piped.length;
    const { min, max = Infinity, run } = FUNCTIONS.get(name) ?? { min: 1 };
    if (count < min || count > max) {
      const wanted = min === max ? String(min) : max === Infinity ? `at least ${min}` : `${min} to ${max}`;
      throw renderError(this.#template.source, { offset, why: `"${name}" got ${count} values, wanted ${wanted}` });
    }
    if (run === undefined) {
      // "and" and "or" evaluate no more operands than they need.
      let value: Value;
      for (const operand of operands) {
        value = this.#operand(operand, dot);
        if (isTrue(value) === (name === "or")) return value;
      }
      return piped.length > 0 ? piped[0] : value;
    }
    const values = [...operands.map((operand) => this.#operand(operand, dot)), ...piped];
    this.#step(offset, costOf(values));
    const result = this.#at(offset, () => run(values));
    this.#step(offset, costOf([result]));
    if (typeof result === "string") this.#checkSize(result.length, offset);
    return result;
  }

  #find(name: string, offset: number): Variable {
    this.#step(offset, this.#variables.length / BYTES_PER_STEP);
    const found = this.#variables.findLast((variable) => variable.name === name);
    if (found !== undefined) return found;
    // Its declaration is an operand of "and" or "or" that was skipped.
    throw renderError(this.#template.source, { offset, why: `the variable "${name}" has no value yet` });
  }

  #write(text: string, offset: number): void {
    this.#checkSize(this.#output.length + text.length, offset);
    this.#output += text;
  }

  #checkSize(bytes: number, offset: number): void {
    if (bytes <= MAX_OUTPUT) return;
    const why = `the result is longer than ${MAX_OUTPUT} bytes, the most that an argument can have`;
    throw renderError(this.#template.source, { offset, why });
  }

  #step(offset: number, count: number): void {
    this.#steps += count;
    if (this.#steps <= MAX_STEPS) return;
    throw renderError(this.#template.source, { offset, why: `the template takes more than ${MAX_STEPS} steps` });
  }

  #at<T>(offset: number, work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof TemplateProblem)) throw error;
      throw renderError(this.#template.source, { offset, why: error.message, hint: error.hint });
    }
  }

  #error({ offset }: Operand, why: string): Error {
    return renderError(this.#template.source, { offset, why });
  }
}

function isMap(value: Value): value is GoMap {
  return typeof value === "object" && "entries" in value;
}

function isTrue(value: Value): boolean {
  if (typeof value === "object") return isMap(value) ? value.size > 0 : value.value !== 0n;
  return Boolean(value);
}

/** Returns the steps that a function takes to read or write values. */
function costOf(values: readonly Value[]): number {
  let steps = 0;
  for (const value of values) {
    if (typeof value === "string") steps += value.length / BYTES_PER_STEP;
    else if (isMap(value)) steps += value.size;
  }
  return steps;
}

function elements(over: Value, variables: number): Iterable<readonly [Value, Value]> {
  if (over === undefined) return [];
  if (isMap(over)) return over.entries();
  if (typeof over !== "object")
    throw new TemplateProblem(`range takes a map or an integer, not a value of type ${typeOf(over)}`);
  if (variables > 1) throw new TemplateProblem("range over an integer takes one variable");
  return countTo(over.value, over.type);
}

function* countTo(end: bigint, type: "int" | "int64" | "uint8"): Generator<readonly [Value, Value]> {
  for (let value = 0n; value < end; value++) yield [undefined, { type, value }];
}

function readField(of: Value, name: string): Value {
  if (!isMap(of)) throw new TemplateProblem(`a value of type ${typeOf(of)} has no field "${name}"`);
  const key = encodeText(name);
  if (of.has(key)) return of.get(key);
  const nearest = of.nearest(key);
  const wanted = nearest === undefined ? "" : `, the nearest is "${nearest}"`;
  if (of.name !== "Env") throw new TemplateProblem(`.${of.name} has no "${name}"${wanted}`);
  throw new TemplateProblem(
    `the environment variable "${name}" is not set${wanted}`,
    `Give it a default: {{ or (index .Env "${name}") "dev" }}`,
  );
}

function length(value: Value): Value {
  if (typeof value === "string") return { type: "int", value: BigInt(value.length) };
  if (!isMap(value)) throw new TemplateProblem(`a value of type ${typeOf(value)} has no length`);
  return { type: "int", value: BigInt(value.entries().length) };
}

function index(value: Value, keys: readonly Value[]): Value {
  let item = value;
  if (item === undefined) throw new TemplateProblem("index of nil");
  for (const key of keys) {
    if (typeof item === "string") {
      const at = position(key, item.length - 1);
      item = { type: "uint8", value: BigInt(item.charCodeAt(at)) };
    } else if (!isMap(item)) {
      throw new TemplateProblem(`index takes a map or a text, not a value of type ${typeOf(item)}`);
    } else {
      if (typeof key !== "string")
        throw new TemplateProblem(`the key of a map has the type ${typeOf(key)}, wanted a text`);
      item = item.get(key);
    }
  }
  return item;
}

function slice(value: Value, keys: readonly Value[]): Value {
  if (typeof value !== "string") throw new TemplateProblem(`slice takes a text, not a value of type ${typeOf(value)}`);
  if (keys.length > 2) throw new TemplateProblem("slice takes at most two positions of a text");
  const [start = 0, end = value.length] = keys.map((key) => position(key, value.length));
  if (start > end) throw new TemplateProblem(`slice begins at ${start}, behind its end at ${end}`);
  return value.slice(start, end);
}

/** @param last the largest position */
function position(key: Value, last: number): number {
  if (typeof key !== "object" || isMap(key))
    throw new TemplateProblem(`a position has the type ${typeOf(key)}, wanted an integer`);
  if (key.value >= 0n && key.value <= BigInt(last)) return Number(key.value);
  throw new TemplateProblem(`position ${key.value} is out of range, wanted at most ${last}`);
}

function checkText(format: Value): string {
  if (typeof format === "string") return format;
  throw new TemplateProblem(`the format of printf has the type ${typeOf(format)}, wanted a text`);
}

function checkPrintable(values: readonly Value[]): readonly Value[] {
  for (const value of values) if (isMap(value) && value.name !== "Git") throw wholeMap(value.name);
  return values;
}

function isEqual(a: Value, b: Value): boolean {
  if (a === undefined || b === undefined) return a === b;
  if (isMap(a) && isMap(b)) throw new TemplateProblem("maps cannot be compared");
  checkSameKind(a, b);
  return typeof a === "object" && typeof b === "object" && !isMap(a) && !isMap(b) ? a.value === b.value : a === b;
}

function isLess(a: Value, b: Value): boolean {
  for (const value of [a, b]) {
    if (value === undefined || typeof value === "boolean" || isMap(value)) {
      throw new TemplateProblem(`values of type ${typeOf(value)} have no order`);
    }
  }
  checkSameKind(a, b);
  if (typeof a === "string" && typeof b === "string") return a < b;
  if (typeof a === "number" && typeof b === "number") return a < b;
  return typeof a === "object" && typeof b === "object" && !isMap(a) && !isMap(b) && a.value < b.value;
}

/** As in Go, integers compare with integers only: neither with fractions nor with texts of digits. */
function checkSameKind(a: Value, b: Value): void {
  if (typeof a === typeof b && isMap(a) === isMap(b)) return;
  throw new TemplateProblem(`values of type ${typeOf(a)} and ${typeOf(b)} cannot be compared`);
}
