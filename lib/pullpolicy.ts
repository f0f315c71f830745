/**
 * Containers that will not start from a side-loaded image: `imagePullPolicy: Always` beside a `ko://` reference.
 *
 * An image that was loaded into a daemon or a node is in no registry, so a kubelet that always pulls finds none.
 */
import { createLocator, type YamlDocument, type YamlPlace } from "./yamldocs.ts";
import { composeTokens, loadYaml, readTokens } from "./yamlparse.ts";

/** Where the policies stand. */
export async function findAlwaysPulled(document: YamlDocument): Promise<readonly YamlPlace[]> {
  if (!document.text.includes("imagePullPolicy")) return [];
  const yaml = await loadYaml();
  const tree = composeTokens(yaml, readTokens(yaml, document), document);
  if (tree === undefined) return [];
  const places: YamlPlace[] = [];
  const locate = createLocator(document);
  yaml.visit(tree, {
    Map: (_, container) => {
      const image = container.get("image");
      const policy = container.get("imagePullPolicy", true);
      if (typeof image !== "string" || !image.trim().startsWith("ko://") || policy?.value !== "Always") return;
      places.push(locate(policy.range?.[0] ?? 0));
    },
  });
  return places;
}
