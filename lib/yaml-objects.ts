/**
 * The Kubernetes objects in YAML documents: selects them by label (`-l`), and names them.
 *
 * Selecting cuts objects and list items out of the text, so all other bytes and positions stay as they are. Selectors
 * themselves are parsed in yaml-selector.ts.
 */
import type { Alias, Document, Node } from "yaml";
import { Pace } from "./async.ts";
import { KoError, throwAll, YamlError } from "./errors.ts";
import { isObject } from "./json.ts";
import { runExact } from "./yaml-exact.ts";
import { cutItems } from "./yaml-objects-cut.ts";
import { type Labels, parseSelector, type Selector } from "./yaml-selector.ts";
import {
  addBroken,
  composeTokens,
  loadYaml,
  readTokens,
  renderDocument,
  resolveAliases,
  showPlace,
  toPlainValue,
  type Yaml,
  type YamlDocument,
  type YamlEdit,
} from "./yaml.ts";

/** The result of selecting in a node. */
interface Selected {
  /** False if nothing of the node is selected. */
  readonly wanted: boolean;
  /** The cuts that leave the selected part. */
  readonly cuts: readonly YamlEdit[];
}

/** The maximum depth of lists within lists in {@link findObjects}. */
const MAX_LISTS = 20;

const ALL: Selected = { wanted: true, cuts: [] };
const NOTHING: Selected = { wanted: false, cuts: [] };

export interface FilterDocumentsOptions {
  /** `-l` */
  readonly selector: string;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Selects the documents whose objects match, in order. Lists keep their matching items.
 *
 * An object without labels has an empty set of labels. Null documents, and lists without a matching item, are dropped.
 *
 * @throws {KoError} If a document is not valid YAML, or neither null nor an object with `apiVersion` and `kind`.
 */
export async function filterDocuments(
  documents: readonly YamlDocument[],
  { selector, signal }: FilterDocumentsOptions,
): Promise<readonly YamlDocument[]> {
  const yaml = await loadYaml();
  const parsed = parseSelector(selector);
  const selected: YamlDocument[] = [];
  const errors: KoError[] = [];
  const pace = new Pace(signal);
  for (const document of documents) {
    try {
      if (pace.isDue) await pace.turn();
      const { wanted, cuts } = await runExact(
        { task: "select", document, selector },
        { work: () => selectIn(document, { yaml, selector: parsed }), isValue: isSelected, signal },
      );
      if (wanted) selected.push(cuts.length === 0 ? document : { ...document, edits: [...document.edits, ...cuts] });
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof KoError)) throw error;
      addBroken(errors, error);
    }
  }
  throwAll(errors);
  return selected;
}

/** Selects within one document. @throws {KoError} As {@link filterDocuments}. */
export function selectIn(
  document: YamlDocument,
  options: { readonly yaml: Yaml; readonly selector: Selector },
): Selected {
  const { yaml } = options;
  const tree = composeTokens(yaml, readTokens(yaml, document), document);
  const selected = new Filter({ ...options, document, tree }).select(tree?.contents);
  const { wanted, cuts } = selected;
  if (wanted && cuts.length > 0) {
    checkAliases(yaml, { document, filtered: { ...document, edits: [...document.edits, ...cuts] } });
  }
  return selected;
}

function isSelected(value: unknown): value is Selected {
  return isObject(value) && typeof value["wanted"] === "boolean" && Array.isArray(value["cuts"]);
}

/**
 * Names the objects of a document, those of a list one by one: `Deployment "web"`, `ConfigMap "a" in namespace "b"`.
 *
 * @returns an empty list if the document is not valid YAML, or holds no object
 */
export async function findObjects(document: YamlDocument, signal?: AbortSignal): Promise<readonly string[]> {
  const rendered = { ...document, text: renderDocument(document), edits: [] };
  const work = async (): Promise<readonly string[]> => nameObjects(rendered, await loadYaml());
  try {
    return await runExact({ task: "objects", document: rendered }, { work, isValue: isTexts, signal });
  } catch (error) {
    signal?.throwIfAborted();
    // It is too large.
    if (error instanceof KoError) return [];
    throw error;
  }
}

/** Names the objects of a document without edits. */
export function nameObjects(document: YamlDocument, yaml: Yaml): readonly string[] {
  try {
    const tree = composeTokens(yaml, readTokens(yaml, document), document);
    return namesIn(toPlainValue(yaml, tree), 0);
  } catch (error) {
    // Invalid YAML, or more aliases or levels than allowed. Resolving the document reports it.
    if (error instanceof KoError || error instanceof ReferenceError || error instanceof RangeError) return [];
    throw error;
  }
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((each) => typeof each === "string");
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
  readonly #targets: ReadonlyMap<Alias, Node | undefined>;
  /** Objects that were selected from, whose cuts are known: aliases can repeat one endlessly. */
  readonly #done = new Map<unknown, boolean>();

  constructor(options: FilterOptions) {
    const { tree, yaml } = options;
    this.#options = options;
    const hasAlias = tree !== undefined && options.document.text.includes("*");
    this.#targets = hasAlias ? resolveAliases(yaml, tree) : new Map<Alias, Node>();
  }

  /** Selects an object, or the items of a list. Nothing of null is selected. */
  select(node: unknown): Selected {
    const object = this.#resolve(node);
    const known = this.#done.get(object);
    if (known !== undefined) return known ? ALL : NOTHING;
    const selected = this.#select(object, node);
    this.#done.set(object, selected.wanted);
    return selected;
  }

  #select(object: unknown, node: unknown): Selected {
    const { yaml, selector } = this.#options;
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
    const labels = new Map<string, string>();
    for (const map of this.#withMerged(this.#find(this.#find(object, "metadata"), "labels"))) {
      for (const { key, value } of map.items) {
        const name = this.#textOf(key) ?? this.#rawOf(key);
        if (name !== undefined && !labels.has(name)) labels.set(name, this.#rawOf(value) ?? "");
      }
    }
    labels.delete("<<");
    return labels;
  }

  /** Returns the value of a key, in the map itself or in a merged one. */
  #find(node: unknown, name: string): unknown {
    for (const { items } of this.#withMerged(node)) {
      for (const { key, value } of items) if (this.#textOf(key) === name) return value;
    }
    return undefined;
  }

  /** Yields a map and those that it merges, each once: the first one that has a key decides. */
  *#withMerged(node: unknown): Generator<{ readonly items: readonly { key: unknown; value: unknown }[] }, void, void> {
    const stack = [this.#resolve(node)];
    const seen = new Set<unknown>();
    while (stack.length > 0) {
      const map = stack.pop();
      if (!this.#options.yaml.isMap(map) || seen.has(map)) continue;
      seen.add(map);
      yield map;
      stack.push(...this.#mergedInto(map).toReversed());
    }
  }

  /** Returns the maps that `<<` keys merge. https://yaml.org/type/merge.html */
  #mergedInto(map: { readonly items: readonly { key: unknown; value: unknown }[] }): readonly unknown[] {
    const { yaml } = this.#options;
    return map.items
      .filter(({ key }) => yaml.isScalar(key) && key.source === "<<")
      .flatMap(({ value }): readonly unknown[] => {
        const merged = this.#resolve(value);
        return yaml.isSeq(merged) ? merged.items.map((item) => this.#resolve(item)) : [merged];
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
    return this.#options.yaml.isAlias(node) ? this.#targets.get(node) : node;
  }

  #refuse(node: unknown, why: string): KoError {
    const { yaml, document } = this.#options;
    const at = yaml.isNode(node) ? (node.range?.[0] ?? 0) : 0;
    return new YamlError(`Cannot apply the selector to "${showPlace(document, at)}": ${why}`, {
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
  const [tree] = [...new yaml.Composer({ uniqueKeys: false }).compose(readTokens(yaml, after))];
  if (tree === undefined) return;
  for (const [alias, target] of resolveAliases(yaml, tree)) {
    if (target !== undefined) continue;
    throw new YamlError(
      `Cannot apply the selector to "${document.file}": an object that does not match has the anchor ` +
        `&${alias.source}, which is used in one that matches`,
      { hint: `Replace *${alias.source} by its value.` },
    );
  }
}

function namesIn(value: unknown, depth: number): readonly string[] {
  if (!isObject(value) || depth > MAX_LISTS) return [];
  const { items, kind, metadata } = value;
  if (Array.isArray(items)) return items.flatMap((item: unknown) => namesIn(item, depth + 1));
  if (typeof kind !== "string" || !isObject(metadata) || typeof metadata["name"] !== "string") return [];
  const namespace = typeof metadata["namespace"] === "string" ? ` in namespace "${metadata["namespace"]}"` : "";
  return [`${kind} "${metadata["name"]}"${namespace}`];
}
