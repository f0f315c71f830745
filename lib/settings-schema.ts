/**
 * The JSON Schema of `.ko.yaml`, docs/schemas/ko.v1.json, as a part of the executable.
 *
 * https://json-schema.org/draft/2020-12/json-schema-core
 */
import schema from "../docs/schemas/ko.v1.json" with { type: "json" };

/** Returns the schema as a file. */
export function formatSchema(): string {
  return `${JSON.stringify(schema, null, 2)}\n`;
}
