/**
 * The `yaml` package: loaded when the first document needs it, and its errors as ours.
 *
 * Tokens keep every byte and say nothing of errors; a composed document says what is wrong. Both come from one reading.
 */
import type { CST, Document } from "yaml";
import { KoError } from "./errors.ts";
import { showPlace, type YamlDocument } from "./yamldocs.ts";

/** The package's module. */
export type Yaml = typeof import("yaml");

/** Loads the package: 20 milliseconds that a run without YAML, or with JSON only, does not spend. */
export function loadYaml(): Promise<Yaml> {
  return import("yaml");
}

/** The concrete syntax of a document, errors and all. */
export function readTokens(yaml: Yaml, document: YamlDocument): readonly CST.Token[] {
  // The package takes a byte order mark before a sequence's dash for indentation; a line end is as long, and means as
  // little there.
  return [...new yaml.Parser().parse(document.text.replace(/^\uFEFF/, "\n"))];
}

/**
 * What the tokens mean. Duplicate keys are left in peace, merge keys are plain keys, unknown tags are no errors.
 *
 * @throws {KoError} If they are no YAML: file, line, column and what is wrong.
 */
export function composeTokens(
  yaml: Yaml,
  tokens: readonly CST.Token[],
  document: YamlDocument,
): Document.Parsed | undefined {
  const composer = new yaml.Composer({ keepSourceTokens: true, prettyErrors: false, uniqueKeys: false });
  const composed = [...composer.compose(tokens)];
  const [error] = composed.flatMap(({ errors }) => errors);
  const [first] = composed;
  if (error !== undefined) {
    // How the composer, which is recursive, says that it ran out of stack.
    const what = error.code === "RESOURCE_EXHAUSTION" ? "it is nested too deeply" : error.message;
    throw new KoError(`Cannot read "${showPlace(document, error.pos[0])}" as YAML: ${what}`);
  }
  return first;
}
