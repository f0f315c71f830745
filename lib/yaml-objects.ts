/**
 * The Kubernetes objects in YAML documents: selects them by label (`-l`), names them, and finds their pull policies.
 *
 * Selecting cuts objects and list items out of the text, so all other bytes and positions stay as they are. Selectors
 * themselves are parsed in yaml-selector.ts.
 */
import type { CST, Document } from "yaml";
import { KoError, KoErrors } from "./errors.ts";
import { isObject } from "./json.ts";
import type { Labels, Selector } from "./yaml-selector.ts";
import {
  composeTokens,
  createLocator,
  loadYaml,
  readTokens,
  renderDocument,
  showPlace,
  type Yaml,
  type YamlDocument,
  type YamlEdit,
  type YamlPlace,
} from "./yaml.ts";

/** The result of selecting in a node. */
interface Selected {
  /** False if nothing of the node is selected. */
  readonly wanted: boolean;
  /** The cuts that leave the selected part. */
  readonly cuts: readonly YamlEdit[];
}

/** The first and last index of a run of items to cut. */
type Run = readonly [first: number, last: number];

interface CutOptions {
  readonly text: string;
  readonly runs: readonly Run[];
}

/** The maximum depth of `<<` merges, which ends loops. */
const MAX_MERGES = 100;
/** The maximum depth of lists within lists in {@link findObjects}. */
const MAX_LISTS = 20;
/** The `maxAliasCount` of the yaml package in {@link findObjects}, which bounds the expansion of aliases. */
const MAX_ALIASES = 100;

const ALL: Selected = { wanted: true, cuts: [] };
const NOTHING: Selected = { wanted: false, cuts: [] };

/**
 * Selects the documents whose objects match, in order. Lists keep their matching items.
 *
 * An object without labels has an empty set of labels. Null documents, and lists without a matching item, are dropped.
 *
 * @throws {KoError} If a document is not valid YAML, or neither null nor an object with `apiVersion` and `kind`.
 */
export async function filterDocuments(
  documents: readonly YamlDocument[],
  selector: Selector,
): Promise<readonly YamlDocument[]> {
  const yaml = await loadYaml();
  const selected: YamlDocument[] = [];
  const errors: KoError[] = [];
  for (const document of documents) {
    try {
      const filtered = filterDocument(document, { yaml, selector });
      if (filtered !== undefined) selected.push(filtered);
    } catch (error) {
      if (!(error instanceof KoError)) throw error;
      errors.push(error);
    }
  }
  if (errors.length === 1 && errors[0] !== undefined) throw errors[0];
  if (errors.length > 1) throw new KoErrors(errors);
  return selected;
}

/**
 * Names the objects of a document, those of a list one by one: `Deployment "web"`, `ConfigMap "a" in namespace "b"`.
 *
 * @returns an empty list if the document is not valid YAML, or holds no object
 */
export async function findObjects(document: YamlDocument): Promise<readonly string[]> {
  const yaml = await loadYaml();
  const rendered = { ...document, text: renderDocument(document), edits: [] };
  try {
    const tree = composeTokens(yaml, readTokens(yaml, rendered), rendered);
    const value: unknown = tree?.toJS({ maxAliasCount: MAX_ALIASES });
    return nameObjects(value, 0);
  } catch (error) {
    // Invalid YAML, or more aliases than allowed. Resolving the document reports it.
    if (error instanceof KoError || error instanceof ReferenceError) return [];
    throw error;
  }
}

/**
 * Finds `imagePullPolicy: Always` beside a `ko://` image. A container with it does not start from an image that was loaded
 * into a daemon or a node: the kubelet asks a registry, which does not have the image.
 *
 * @throws {KoError} If the document is not valid YAML.
 */
export async function findAlwaysPulled(document: YamlDocument): Promise<readonly YamlPlace[]> {
  if (!document.text.includes("imagePullPolicy")) return [];
  const yaml = await loadYaml();
  const tree = composeTokens(yaml, readTokens(yaml, document), document);
  if (tree === undefined) return [];
  const places: YamlPlace[] = [];
  const locate = createLocator(document);
  const valueOf = (node: unknown): unknown => {
    const target = yaml.isAlias(node) ? node.resolve(tree) : node;
    return yaml.isScalar(target) ? target.value : undefined;
  };
  yaml.visit(tree, {
    Map: (_, container) => {
      const image = valueOf(container.get("image", true));
      const policy: unknown = container.get("imagePullPolicy", true);
      if (typeof image !== "string" || !image.trim().startsWith("ko://") || valueOf(policy) !== "Always") return;
      places.push(locate((yaml.isNode(policy) ? policy.range?.[0] : undefined) ?? 0));
    },
  });
  return places;
}

function filterDocument(
  document: YamlDocument,
  options: { readonly yaml: Yaml; readonly selector: Selector },
): YamlDocument | undefined {
  const { yaml } = options;
  const tree = composeTokens(yaml, readTokens(yaml, document), document);
  const { wanted, cuts } = new Filter({ ...options, document, tree }).select(tree?.contents);
  if (!wanted) return undefined;
  if (cuts.length === 0) return document;
  const filtered = { ...document, edits: [...document.edits, ...cuts] };
  checkAliases(yaml, { document, filtered });
  return filtered;
}

interface FilterOptions {
  readonly yaml: Yaml;
  readonly selector: Selector;
  readonly document: YamlDocument;
  readonly tree: Document.Parsed | undefined;
}

/** Selects the objects of one document. */
class Filter {
  readonly #options: FilterOptions;

  constructor(options: FilterOptions) {
    this.#options = options;
  }

  /** Selects an object, or the items of a list. Nothing of null is selected. */
  select(node: unknown): Selected {
    const { yaml, selector } = this.#options;
    const object = this.#resolve(node);
    if (object === undefined || object === null || (yaml.isScalar(object) && object.value === null)) return NOTHING;
    const kind = this.#textOf(this.#find(object, "kind"));
    if (kind === undefined || this.#textOf(this.#find(object, "apiVersion")) === undefined) {
      throw this.#refuse(node, "it has no apiVersion and kind, wanted a Kubernetes object");
    }
    const items = this.#find(object, "items");
    if (kind === "List" || (kind.endsWith("List") && yaml.isSeq(this.#resolve(items)))) return this.#selectItems(items);
    return selector(this.#labelsOf(object)) ? ALL : NOTHING;
  }

  #selectItems(items: unknown): Selected {
    const { yaml } = this.#options;
    const list = this.#resolve(items);
    if (yaml.isScalar(list) && list.value === null) return NOTHING;
    if (!yaml.isSeq(list)) throw this.#refuse(items, "it is a List without items, wanted a sequence of objects");
    const selected = list.items.map((item) => this.select(item));
    if (!selected.some(({ wanted }) => wanted)) return NOTHING;
    if (selected.every(({ wanted, cuts }) => wanted && cuts.length === 0)) return ALL;
    const { srcToken } = list;
    if (yaml.isAlias(items) || srcToken === undefined) {
      throw this.#refuse(items, "the items of a List are an alias, wanted a sequence to select from");
    }
    const keep = selected.map(({ wanted }) => wanted);
    const cuts = cutItems(srcToken, { text: this.#options.document.text, keep });
    return { wanted: true, cuts: [...cuts, ...selected.flatMap((item) => (item.wanted ? item.cuts : []))] };
  }

  #labelsOf(object: unknown): Labels {
    const { yaml } = this.#options;
    const labels = new Map<string, string>();
    const collect = (node: unknown, depth: number): void => {
      const map = this.#resolve(node);
      if (!yaml.isMap(map) || depth > MAX_MERGES) return;
      for (const { key, value } of map.items) {
        const name = this.#textOf(key) ?? this.#rawOf(key);
        if (name !== undefined && !labels.has(name)) labels.set(name, this.#rawOf(value) ?? "");
      }
      for (const merged of this.#mergedInto(map)) collect(merged, depth + 1);
    };
    collect(this.#find(this.#find(object, "metadata"), "labels"), 0);
    labels.delete("<<");
    return labels;
  }

  /** Returns the value of a key, in the map itself or in a merged one. */
  #find(node: unknown, name: string, depth = 0): unknown {
    const map = this.#resolve(node);
    if (!this.#options.yaml.isMap(map) || depth > MAX_MERGES) return undefined;
    for (const { key, value } of map.items) if (this.#textOf(key) === name) return value;
    for (const merged of this.#mergedInto(map)) {
      const value = this.#find(merged, name, depth + 1);
      if (value !== undefined) return value;
    }
    return undefined;
  }

  /** Returns the maps that `<<` keys merge. https://yaml.org/type/merge.html */
  #mergedInto(map: { readonly items: readonly { key: unknown; value: unknown }[] }): readonly unknown[] {
    const { yaml } = this.#options;
    return map.items
      .filter(({ key }) => yaml.isScalar(key) && key.source === "<<")
      .flatMap(({ value }): readonly unknown[] => {
        const merged = this.#resolve(value);
        return yaml.isSeq(merged) ? merged.items : [merged];
      });
  }

  /** Returns the value of a string scalar, else undefined. */
  #textOf(node: unknown): string | undefined {
    const scalar = this.#resolve(node);
    return this.#options.yaml.isScalar(scalar) && typeof scalar.value === "string" ? scalar.value : undefined;
  }

  /** Returns a scalar as it is written, without quotes: `1.10` for a number, `true` for a boolean. */
  #rawOf(node: unknown): string | undefined {
    const scalar = this.#resolve(node);
    if (!this.#options.yaml.isScalar(scalar)) return undefined;
    return typeof scalar.value === "string" ? scalar.value : (scalar.source ?? "");
  }

  #resolve(node: unknown): unknown {
    const { yaml, tree } = this.#options;
    return yaml.isAlias(node) && tree !== undefined ? node.resolve(tree) : node;
  }

  #refuse(node: unknown, why: string): KoError {
    const { yaml, document } = this.#options;
    const at = yaml.isNode(node) ? (node.range?.[0] ?? 0) : 0;
    return new KoError(`Cannot apply the selector to "${showPlace(document, at)}": ${why}`, {
      hint: "Remove -l, or the file.",
    });
  }
}

/** @throws {KoError} If a cut removes an anchor that a remaining alias needs. */
function checkAliases(yaml: Yaml, options: { readonly document: YamlDocument; readonly filtered: YamlDocument }): void {
  const { document, filtered } = options;
  if (!filtered.edits.some(({ start, end }) => document.text.slice(start, end).includes("&"))) return;
  const text = renderDocument(filtered);
  const after = { ...filtered, text, edits: [] };
  const tree = composeTokens(yaml, readTokens(yaml, after), after);
  if (tree === undefined) return;
  yaml.visit(tree, {
    Alias: (_key, alias) => {
      if (alias.resolve(tree) !== undefined) return;
      throw new KoError(
        `Cannot apply the selector to "${document.file}": an object that does not match has the anchor ` +
          `&${alias.source}, which is used in one that matches`,
        { hint: `Replace *${alias.source} by its value.` },
      );
    },
  });
}

/**
 * Cuts items out of a YAML or JSON sequence, with their dashes, commas and comments.
 *
 * A comment belongs to the item on whose line it is, or else to the next item; one that is indented deeper than the dash
 * belongs to the item before it.
 *
 * @param token the sequence, from the tokens of `text`, which has no errors
 * @param options.keep one value per item, in order; at least one is true
 * @throws {RangeError} If the token is not a sequence of as many items as `keep` has.
 */
function cutItems(
  token: CST.Token,
  { text, keep }: { readonly text: string; readonly keep: readonly boolean[] },
): readonly YamlEdit[] {
  const runs = runsOf(keep);
  if (token.type === "block-seq") return cutBlockItems(token, { text, runs });
  if (token.type === "flow-collection") return cutFlowItems(token, { text, runs });
  throw new RangeError(`a ${token.type} has no items`);
}

function runsOf(keep: readonly boolean[]): readonly Run[] {
  const runs: Run[] = [];
  for (let i = 0; i < keep.length; i++) {
    if (keep[i]) continue;
    const first = i;
    while (i + 1 < keep.length && !keep[i + 1]) i++;
    runs.push([first, i]);
  }
  return runs;
}

function cutBlockItems(sequence: CST.BlockSequence, { text, runs }: CutOptions): readonly YamlEdit[] {
  const items = sequence.items.flatMap((item) => {
    const dash = item.start.find(({ type }) => type === "seq-item-ind");
    return dash === undefined ? [] : [{ dash: dash.offset, end: endOfItem(item) }];
  });
  const at = (index: number): { readonly dash: number; readonly end: number } => {
    const item = items[index];
    if (item === undefined) throw new RangeError(`a sequence of ${items.length} items has no item ${index}`);
    return item;
  };
  // An item begins with the comments right above its dash.
  const startOf = (index: number): number => {
    const { dash } = at(index);
    const floor = index === 0 ? 0 : lineAfter(text, at(index - 1).end);
    let start = text.lastIndexOf("\n", dash - 1) + 1;
    const column = dash - start;
    while (start > floor) {
      const above = text.lastIndexOf("\n", start - 2) + 1;
      const indent = commentIndent(text, above);
      if (above < floor || indent === undefined || indent > column) break;
      start = above;
    }
    return start;
  };
  const endOf = (index: number): number => {
    if (index + 1 < items.length) return startOf(index + 1);
    const { dash, end } = at(index);
    const column = dash - (text.lastIndexOf("\n", dash - 1) + 1);
    let after = lineAfter(text, end);
    for (let indent = commentIndent(text, after); indent !== undefined && indent > column;) {
      after = lineAfter(text, after + 1);
      indent = commentIndent(text, after);
    }
    return after;
  };
  return runs.map(([first, last]) => {
    const { dash } = at(first);
    const line = text.slice(text.lastIndexOf("\n", dash - 1) + 1, dash);
    // If the first dash is not at the start of a line (`: - a`), the next dash moves to its place.
    if (!/^[ \t\uFEFF]*$/.test(line)) return { start: dash, end: at(last + 1).dash, text: "" };
    return { start: startOf(first), end: endOf(last), text: "" };
  });
}

function cutFlowItems(sequence: CST.FlowCollection, { text, runs }: CutOptions): readonly YamlEdit[] {
  const commas = sequence.items.flatMap(({ start }) => start.filter(({ type }) => type === "comma"));
  const items = sequence.items.filter(({ key, sep, value, start }) => {
    return key !== undefined || sep !== undefined || value !== undefined || start.some(isContent);
  });
  const comma = (index: number): number => commas[index]?.offset ?? -1;
  // An item begins behind the preceding comma, and behind a comment on the line of that comma.
  const startOf = (index: number): number => {
    const behind = index === 0 ? sequence.start.offset + 1 : comma(index - 1) + 1;
    const comment = /^[ \t]+#[^\r\n]*/.exec(text.slice(behind, lineAfter(text, behind)));
    return behind + (comment?.[0].length ?? 0);
  };
  return runs.flatMap(([first, last]): readonly YamlEdit[] => {
    const item = items[last];
    if (item === undefined) throw new RangeError(`a sequence of ${items.length} items has no item ${last}`);
    if (last + 1 < items.length) return [{ start: startOf(first), end: startOf(last + 1), text: "" }];
    // Without a comma behind the last item, the comma before the run is cut.
    if (comma(last) !== -1) return [{ start: startOf(first), end: startOf(last + 1), text: "" }];
    const before = comma(first - 1);
    return [
      { start: before, end: before + 1, text: "" },
      { start: startOf(first), end: endOfItem(item), text: "" },
    ];
  });
}

/** Returns the indentation of a comment that has a line of its own, else undefined. */
function commentIndent(text: string, lineStart: number): number | undefined {
  let at = lineStart;
  while (text[at] === " " || text[at] === "\t") at++;
  return text[at] === "#" ? at - lineStart : undefined;
}

/** Returns the start of the line after `offset`, or `offset` itself if a line begins there. */
function lineAfter(text: string, offset: number): number {
  if (text[offset - 1] === "\n") return offset;
  const newline = text.indexOf("\n", offset);
  return newline === -1 ? text.length : newline + 1;
}

function isContent({ type }: CST.SourceToken): boolean {
  return type !== "space" && type !== "comment" && type !== "newline" && type !== "comma";
}

/** Returns the end of an item's last token that is neither blank nor a comment, without recursion. */
function endOfItem(item: CST.CollectionItem): number {
  let at: CST.CollectionItem = item;
  for (;;) {
    const last: CST.Token | undefined =
      at.value ?? at.sep?.findLast(isContent) ?? at.key ?? at.start.findLast(isContent);
    if (last === undefined) throw new RangeError("an item without tokens");
    if (last.type === "block-map" || last.type === "block-seq") {
      const inner: CST.CollectionItem | undefined = last.items.findLast(
        ({ start, key, sep, value }: CST.CollectionItem) => {
          return value !== undefined || key !== undefined || sep !== undefined || start.some(isContent);
        },
      );
      if (inner === undefined) throw new RangeError("a block collection without items");
      at = inner;
      continue;
    }
    if (last.type === "flow-collection") {
      const [close] = last.end;
      return close === undefined ? last.offset : close.offset + close.source.length;
    }
    if (last.type === "block-scalar") {
      const header = last.props.at(-1);
      const start = header !== undefined && "source" in header ? header.offset + header.source.length : last.offset;
      return start + last.source.length;
    }
    return "source" in last ? last.offset + last.source.length : last.offset;
  }
}

function nameObjects(value: unknown, depth: number): readonly string[] {
  if (!isObject(value) || depth > MAX_LISTS) return [];
  const { items, kind, metadata } = value;
  if (Array.isArray(items)) return items.flatMap((item: unknown) => nameObjects(item, depth + 1));
  if (typeof kind !== "string" || !isObject(metadata) || typeof metadata["name"] !== "string") return [];
  const namespace = typeof metadata["namespace"] === "string" ? ` in namespace "${metadata["namespace"]}"` : "";
  return [`${kind} "${metadata["name"]}"${namespace}`];
}
