"""Human and animal pose: skeletons, annotations, crops, codecs, networks and scores."""
