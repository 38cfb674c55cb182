# That there is such a module. compiled.py hands it out as a ModuleType, which has any attribute:
# arguments and results of the functions stand in kernels/*bindings.cpp.
built_for: str
